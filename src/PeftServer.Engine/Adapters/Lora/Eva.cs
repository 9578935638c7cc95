using PeftServer.Engine.Data;
using PeftServer.Engine.Models;
using PeftServer.Engine.Native;

namespace PeftServer.Engine.Adapters.Lora;

/// <summary>EVA: principal components of each module's inputs, batch after batch until they stay, and ranks by what they explain.</summary>
internal static class Eva
{
    private const int MaxBatches = 1000; // what has not settled by then is used as it is

    public static LoraAdapter Create(LoraConfig config, CausalLanguageModel model, CalibrationData data)
    {
        using var scope = NewDisposeScope();
        var settings = config.EvaConfig!;
        var targets = TargetModules.Select(
            model, config.TargetModules!, config.ExcludeModules, config.ModulesToSave, config.LayersToTransform?.Values, config.LayersPattern?.Values);
        var sites = targets.OfType<Projection>().ToList();
        var components = sites.ToDictionary(site => site, site => new PrincipalComponents(
            Math.Min(site.InFeatures, (int)Math.Round(config.RankAt(site.Path).R * settings.Rho)), settings.Tau));
        Find(config, model, sites, components, data);

        var ranks = Ranks(config, sites, components);
        var adapter = new LoraAdapter(Redistributed(config, targets, ranks), model);
        foreach (var (site, part) in adapter.Parts)
        {
            if (site is Projection projection && part is LoraProjection lora)
            {
                var found = components[projection];
                var a = found.Components.narrow(0, 0, lora.Rank);
                a = settings.Whiten ? LowRank.ScaleRows(a, found.SingularValues.narrow(0, 0, lora.Rank).sqrt().reciprocal()) : a;
                lora.StartFrom(a.to(ScalarType.Float32, copy: true).DetachFromDisposeScope(), zeros(projection.OutFeatures, lora.Rank, device: a.device).DetachFromDisposeScope());
            }
        }

        return adapter;
    }

    private static void Find(
        LoraConfig config, CausalLanguageModel model, List<Projection> sites, Dictionary<Projection, PrincipalComponents> components, CalibrationData data)
    {
        Tensor? chosen = null; // tokens that are looked at
        var ranks = Ranks(config, sites, components);
        using var probe = new SiteProbe(config, model, sites, (site, x, call) =>
        {
            using var scope = NewDisposeScope();
            if (!components[site].HasSettled(ranks[site]))
            {
                components[site].Add((chosen is null ? x : x.index_select(0, chosen)).to(ScalarType.Float32));
            }

            return call.Next(x).MoveToOuterDisposeScope();
        });
        for (var i = 0; i < MaxBatches; i++)
        {
            var batch = data.Batches[i % data.Batches.Count];
            using var scope = NewDisposeScope();
            chosen = config.EvaConfig!.UseLabelMask ? tensor(Trained(batch), dtype: ScalarType.Int64, device: model.Device) : null;
            LoraCalibration.Run(model, batch, probe);
            ranks = Ranks(config, sites, components);
            if (sites.TrueForAll(site => components[site].HasSettled(ranks[site])))
            {
                return;
            }
        }

        if (sites.Find(site => !components[site].HasAny) is { } bare)
        {
            throw new AdapterException("init_lora_weights", $"'eva': no batch has as many tokens as {bare.Path} needs components ({components[bare].Count}). Use larger batches or a smaller r.");
        }
    }

    /// <summary>The ranks of all sites together, given to the components that explain most.</summary>
    private static Dictionary<Projection, int> Ranks(LoraConfig config, List<Projection> sites, Dictionary<Projection, PrincipalComponents> components)
    {
        if (!sites.TrueForAll(site => components[site].HasAny))
        {
            return sites.ToDictionary(site => site, site => components[site].Count);
        }

        var budget = sites.Sum(site => config.RankAt(site.Path).R);
        var counts = sites.ToDictionary(site => site, _ => 0);
        foreach (var (site, _) in sites
            .SelectMany(site => components[site].ExplainedShares.Select(share => (site, share)))
            .OrderByDescending(entry => entry.share).Take(budget))
        {
            counts[site]++;
        }

        return counts;
    }

    /// <summary>The settings that say where the ranks went; a module without any is no target any more.</summary>
    private static LoraConfig Redistributed(LoraConfig config, IReadOnlyList<Site> targets, Dictionary<Projection, int> ranks)
    {
        var (rankPattern, alphaPattern, names) = (new Dictionary<string, int>(), new Dictionary<string, double>(), new List<string>());
        foreach (var site in targets)
        {
            var r = config.RankAt(site.Path).R;
            var alpha = TargetModules.ByPattern(config.AlphaPattern, site.Path, config.LoraAlpha);
            var rank = site is Projection projection ? ranks[projection] : r;
            alpha = config.EvaConfig!.AdjustScalingFactors ? alpha * rank / r : alpha;
            if (rank == 0)
            {
                continue;
            }

            names.Add(site.Path);
            if (rank != config.R)
            {
                rankPattern[site.Path] = rank;
            }

            if (alpha != config.LoraAlpha)
            {
                alphaPattern[site.Path] = alpha;
            }
        }

        return config with
        {
            TargetModules = ModuleSelector.Of([.. names]),
            ExcludeModules = null,
            LayersToTransform = null,
            LayersPattern = null,
            RankPattern = rankPattern,
            AlphaPattern = alphaPattern,
        };
    }

    private static long[] Trained(IReadOnlyList<TrainingRow> batch) =>
        [.. batch.SelectMany(row => row.Trained).Select((trained, i) => (trained, i)).Where(entry => entry.trained).Select(entry => (long)entry.i)];
}

/// <summary>
/// Principal components of rows that come in batches: each batch's decomposition starts from what those before left.
/// <see href="https://www.cs.toronto.edu/~dross/ivt/RossLimLinYang_ijcv.pdf">Ross et al. 2008</see>.
/// </summary>
internal sealed class PrincipalComponents(int count, double threshold)
{
    private const int PowerIterations = 4;
    private const ulong Seed = 42; // PEFT's
    private Tensor? _components; // [count, in]
    private Tensor? _values; // [count]
    private Tensor? _mean; // [in], float64
    private Tensor? _variance; // [in], float64
    private long _rows;
    private bool[] _settled = new bool[count];

    public int Count => count;

    public bool HasAny => _components is not null;

    /// <summary>Components of length 1, those that explain most first: [count, in].</summary>
    public Tensor Components => _components!;

    /// <summary>Their singular values: [count].</summary>
    public Tensor SingularValues => _values!;

    /// <summary>Share of the variance that each explains.</summary>
    public IReadOnlyList<double> ExplainedShares { get; private set; } = [];

    /// <summary>Whether the last batch left the first <paramref name="rank"/> components where they were.</summary>
    public bool HasSettled(int rank) => HasAny && _settled.AsSpan(0, rank).IndexOf(false) < 0;

    /// <summary>Takes in rows [n, in]; fewer than there are components tell nothing and are left out.</summary>
    public void Add(Tensor x)
    {
        if (x.size(0) < count)
        {
            return;
        }

        using var scope = NewDisposeScope();
        var (rows, before) = (x.size(0), _rows);
        var total = before + rows;
        var wide = x.to(ScalarType.Float64);
        var (batchMean, batchVariance) = (wide.mean([0]), wide.var([0], unbiased: false));
        var centred = x.Minus(x.mean([0]));
        var mean = _mean is null ? batchMean : _mean.Times(before).Plus(batchMean.Times(rows)).Times(1.0 / total);
        if (_components is not null)
        {
            // In double precision from here on, as PEFT: its draws are others, and a few iterations do not forget them.
            var correction = _mean!.Minus(batchMean).Times(Math.Sqrt((double)before / total * rows));
            var held = LowRank.ScaleRows(_components, _values!).to(ScalarType.Float64);
            centred = cat([held, centred.to(ScalarType.Float64), correction.unsqueeze(0)], 0);
        }

        var variance = batchVariance;
        if (_variance is not null)
        {
            var difference = _mean!.Minus(batchMean);
            variance = _variance.Times(before).Plus(batchVariance.Times(rows)).Times(1.0 / total)
                .Plus(difference.mul(difference).Times((double)before * rows / ((double)total * total)));
        }

        using var generator = new Generator(Seed);
        var (_, s, vt) = LowRank.RandomizedSvd(centred, Math.Min(2 * count, Math.Min(centred.size(0), centred.size(1))), PowerIterations, generator);
        var components = Upright(vt.narrow(0, 0, count));
        if (_components is not null)
        {
            var turned = F.cosine_similarity(components, _components.to(components.dtype), 1).to(ScalarType.Float32).data<float>().ToArray();
            _settled = Array.ConvertAll(turned, cosine => cosine >= threshold);
        }

        var spread = variance.sum().item<double>() * total;
        ExplainedShares = [.. s.narrow(0, 0, count).to(ScalarType.Float64).data<double>().ToArray().Select(value => value * value / spread)];
        Keep(ref _components, components);
        Keep(ref _values, s.narrow(0, 0, count).clone());
        Keep(ref _mean, mean);
        Keep(ref _variance, variance);
        _rows = total;
    }

    /// <summary>Each with its largest entry positive, so that batches can be compared.</summary>
    private static Tensor Upright(Tensor components)
    {
        var largest = components.abs().argmax(1, keepdim: true);
        return components.mul(components.gather(1, largest).sign());
    }

    private static void Keep(ref Tensor? held, Tensor tensor)
    {
        held?.Dispose();
        held = tensor.MoveToOuterDisposeScope().DetachFromDisposeScope();
    }
}
