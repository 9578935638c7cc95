using PeftServer.Engine.Data;
using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Training;

namespace PeftServer.Engine.Adapters.Lora;

/// <summary>Makes LoRA adapters whose A and B start from what the model makes of training data: EVA, CorDA, LoRA-GA.</summary>
internal static class LoraCalibration
{
    /// <summary>An adapter on <paramref name="model"/> that <see cref="Adapter.Initialize"/> will start from <paramref name="data"/>.</summary>
    public static LoraAdapter Create(LoraConfig config, PretrainedModel model, CalibrationData data)
    {
        var causal = model as CausalLanguageModel
            ?? throw new AdapterException("init_lora_weights", $"'{config.InitLoraWeights.Name}' runs text through a causal language model, which {model.Config.ModelType} is not.");
        if (data.Batches.Count == 0)
        {
            throw new AdapterException("init_lora_weights", $"'{config.InitLoraWeights.Name}' needs at least one row of training data.");
        }

        if (config.InitLoraWeights.Name == "eva")
        {
            return Eva.Create(config, causal, data);
        }

        var adapter = new LoraAdapter(config, model);
        var parts = adapter.Parts.Select(entry => (entry.Site, Part: entry.Part as LoraProjection)).Where(entry => entry.Part is not null).ToList();
        var sites = parts.ConvertAll(entry => (Projection)entry.Site);
        var found = config.InitLoraWeights.Name == "corda" ? Corda.Covariances(config, causal, sites, data) : LoraGa.Gradients(config, causal, sites, data);
        foreach (var (site, part) in parts)
        {
            using var scope = NewDisposeScope();
            using var frozen = no_grad();
            var projection = (Projection)site;
            var (a, b) = config.InitLoraWeights.Name == "corda"
                ? Corda.Start(config.CordaConfig!, projection, found[projection], part!.Rank, part.Scale)
                : LoraGa.Start(config.LoraGaConfig!, projection, found[projection], part!.Rank, part.Scale);
            part!.StartFrom(a.DetachFromDisposeScope(), b.DetachFromDisposeScope());
            found[projection].Dispose();
        }

        return adapter;
    }

    /// <summary>Runs sequences through the model, and through its head where that is looked at.</summary>
    public static void Run(CausalLanguageModel model, IEnumerable<TrainingRow> rows, SiteProbe probe)
    {
        using var scope = NewDisposeScope();
        using var frozen = no_grad();
        using var batch = ForwardBatch.Packed([.. rows.Select(row => row.InputIds)], [probe], model.Device);
        var hidden = model.Hidden(batch);
        if (probe.Parts.Any(entry => entry.Site.Path == model.OutputHead))
        {
            model.Logits(hidden, batch);
        }
    }
}

/// <summary>CorDA: the directions of W·C for the covariance C of a module's inputs.</summary>
internal static class Corda
{
    private const int MaxRows = 256; // more changes little: so PEFT's description

    /// <summary>Covariance of the inputs of each site [in, in], one row of the data a pass, each pass in units of its largest input.</summary>
    public static Dictionary<Projection, Tensor> Covariances(LoraConfig config, CausalLanguageModel model, IReadOnlyList<Projection> sites, CalibrationData data)
    {
        var sums = sites.ToDictionary(site => site, site => zeros(site.InFeatures, site.InFeatures, device: model.Device).DetachFromDisposeScope());
        using var probe = new SiteProbe(config, model, sites, (site, x, call) =>
        {
            using var scope = NewDisposeScope();
            var scaled = x.to(ScalarType.Float32);
            scaled = scaled.div(scaled.max().abs());
            sums[site].Add(scaled.t().mm(scaled));
            return call.Next(x).MoveToOuterDisposeScope();
        });
        var rows = data.Batches.SelectMany(batch => batch).Take(MaxRows).ToList();
        foreach (var row in rows)
        {
            LoraCalibration.Run(model, [row], probe);
        }

        foreach (var sum in sums.Values)
        {
            sum.Scale(1.0 / rows.Count);
        }

        return sums;
    }

    /// <summary>A [r, in] and B [out, r] for a covariance [in, in].</summary>
    public static (Tensor A, Tensor B) Start(CordaConfig config, Projection site, Tensor covariance, int r, double scale)
    {
        var (steady, inverse) = Damped(covariance);
        var (u, s, vt) = LowRank.Svd(site.DenseWeight().to(ScalarType.Float32).mm(steady));
        var v = vt.mm(inverse); // [k, in]
        var from = config.CordaMethod == "ipm" ? 0 : s.size(0) - r;
        var root = s.narrow(0, from, r).Times(1 / scale).sqrt();
        return (LowRank.ScaleRows(v.narrow(0, from, r), root), LowRank.ScaleColumns(u.narrow(1, from, r), root));
    }

    /// <summary>The covariance with as much added to its diagonal as its inverse needs, and that inverse.</summary>
    private static (Tensor Steady, Tensor Inverse) Damped(Tensor covariance)
    {
        var (unit, mean) = (eye(covariance.size(0), device: covariance.device), covariance.diag().mean());
        for (var damping = 0.01; ; damping *= 2)
        {
            var steady = covariance.Plus(unit.mul(mean).Times(damping));
            var inverse = linalg.inv(steady);
            if (steady.mm(inverse).Minus(unit).norm().item<float>() < 0.05)
            {
                return (steady, inverse);
            }

            if (damping > 1e6)
            {
                throw new AdapterException("init_lora_weights", "'corda': the inputs of a module have no covariance that can be inverted. Give more varied data.");
            }
        }
    }
}

/// <summary>LoRA-GA: the directions of the gradient of W.</summary>
internal static class LoraGa
{
    private const int MaxRows = 64;

    /// <summary>Gradient of the loss by the weight of each site [out, in], the mean over batches.</summary>
    public static Dictionary<Projection, Tensor> Gradients(LoraConfig config, CausalLanguageModel model, IReadOnlyList<Projection> sites, CalibrationData data)
    {
        using var scope = NewDisposeScope();
        var weights = sites.ToDictionary(site => site, site => site.DenseWeight().detach());
        foreach (var weight in weights.Values)
        {
            weight.requires_grad = true;
        }

        using var probe = new SiteProbe(config, model, sites, (site, x, call) => F.linear(x, weights[site], call.Site.Bias?.Value));
        var (batches, rows) = (0, 0);
        foreach (var batch in data.Batches.TakeWhile(batch => rows < MaxRows))
        {
            using var inner = NewDisposeScope();
            var sft = SftBatch.Of(batch);
            SftLoss.Compute(model, [probe], sft, dropout: null).Sum.Times(1.0 / Math.Max(1, sft.Targets.Length)).backward();
            (batches, rows) = (batches + 1, rows + batch.Count);
        }

        return weights.ToDictionary(
            entry => entry.Key, entry => entry.Value.grad!.to(ScalarType.Float32).Times(1.0 / batches).DetachFromDisposeScope());
    }

    /// <summary>A [r, in] and B [out, r] for a gradient [out, in].</summary>
    public static (Tensor A, Tensor B) Start(LoraGaConfig config, Projection site, Tensor gradient, int r, double scale)
    {
        using var generator = new Generator(0);
        var least = Math.Min(site.InFeatures, site.OutFeatures);
        if (2 * r > least)
        {
            throw new AdapterException("r", $"init_lora_weights 'lora_ga' needs r of at most {least / 2} at {site.Path}, not {r}.");
        }

        var (u, s, vt) = 4 * r >= least ? LowRank.Svd(gradient) : LowRank.RandomizedSvd(gradient, 4 * r, 4, generator);
        var (forA, forB) = Directions(config.Direction, r, generator);
        using var rows = tensor(forA, dtype: ScalarType.Int64, device: gradient.device);
        using var columns = tensor(forB, dtype: ScalarType.Int64, device: gradient.device);
        var strengths = s.index_select(0, columns);
        var (a, b) = (vt.index_select(0, rows), LowRank.ScaleColumns(u.index_select(1, columns), strengths));
        return config.Scale switch
        {
            "stable" => (a, b.Times(Math.Pow(site.OutFeatures, 0.25) / Math.Sqrt(config.StableGamma))),
            "gd_scale" => (a.Times(1 / scale), b.Times(1 / scale)),
            "weight_svd" when strengths[0].item<float>() > 0 => (a, b.mul(LowRank.Svd(site.DenseWeight()).S[0].div(strengths[0]))),
            _ => (a, b),
        };
    }

    private static (long[] ForA, long[] ForB) Directions(string direction, int r, Generator generator)
    {
        long[] Every(int start, int step) => [.. Enumerable.Range(0, r).Select(i => start + ((long)step * i))];
        switch (direction)
        {
            case "ArBr":
                return (Every(1, 2), Every(0, 2));
            case "A2rBr":
                return (Every(r, 1), Every(0, 1));
            case "ArB2r":
                return (Every(0, 1), Every(r, 1));
            default:
                var drawn = randperm(2 * r, dtype: ScalarType.Int64, generator: generator).data<long>().ToArray()[..r];
                return (drawn, drawn);
        }
    }
}
