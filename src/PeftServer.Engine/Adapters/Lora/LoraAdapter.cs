using PeftServer.Engine.Adapters.TrainableTokens;
using PeftServer.Engine.Models;
using PeftServer.Engine.Native;

namespace PeftServer.Engine.Adapters.Lora;

/// <summary>LoRA on the sites that its <see cref="LoraConfig"/> names, beside rows of the embedding that train.</summary>
internal sealed class LoraAdapter : TargetedAdapter
{
    public LoraAdapter(LoraConfig config, PretrainedModel model)
        : base(config, model)
    {
        AttachParameters(config, model);
        foreach (var (site, ids) in TokenRows.Of(config.TrainableTokenIndices, model))
        {
            var rows = new TokenDelta(site, ids, "token_adapter.");
            Attach(site, rows);
            foreach (var head in TokenRows.Tied(model, site))
            {
                Attach(head, new TokenDelta.TiedHead(rows, saved: false));
            }
        }

        if (config.TiesTargets)
        {
            AttachTiedHeads(model);
        }
    }

    /// <summary>
    /// What loads on the base as it is: where the start was taken out of the base and only this run knows it, B₀A₀ goes into an adapter of twice
    /// the rank, W − s·B₀A₀ + s·BA = W + s·[B, −B₀][A; A₀]. Otherwise this adapter.
    /// </summary>
    internal override Adapter Portable()
    {
        var config = (LoraConfig)Config;
        if (!config.InitLoraWeights.NeedsStart)
        {
            return this;
        }

        var grown = config.UseRslora ? Math.Sqrt(2) : 2;
        var plain = new LoraAdapter(
            config with
            {
                InitLoraWeights = LoraInit.Default,
                CordaConfig = null,
                LoraGaConfig = null,
                R = 2 * config.R,
                LoraAlpha = grown * config.LoraAlpha,
                RankPattern = config.RankPattern.ToDictionary(entry => entry.Key, entry => 2 * entry.Value),
                AlphaPattern = config.AlphaPattern.ToDictionary(entry => entry.Key, entry => grown * entry.Value),
            }, Model);
        using var scope = NewDisposeScope();
        var mine = State.ToDictionary(entry => entry.Key, entry => entry.Weight.Value);
        foreach (var (key, weight) in plain.State.Where(entry => entry.Weight.Shape.SequenceEqual(mine[entry.Key].shape)))
        {
            weight.Set(mine[key].clone());
        }

        foreach (var (part, old) in plain.Parts.Select(entry => entry.Part).Zip(Parts.Select(entry => entry.Part)))
        {
            if (part is LoraProjection target && old is LoraProjection { Shift.Factors: { } lost } source)
            {
                target.Set(cat([source.A, lost.Right.Value], 0), cat([source.B, lost.Left.Value.neg()], 1));
            }
        }

        return plain;
    }

    protected internal override void Settle()
    {
        using var frozen = no_grad();
        using var scope = NewDisposeScope();
        foreach (var head in Parts.Select(entry => entry.Part).OfType<TiedLoraHead>())
        {
            head.Join();
        }
    }

    public override void AfterStep(int step) => Settle();

    /// <summary>KaSA's layers add up; MonteCLoRA's are averaged, as PEFT does.</summary>
    public override Tensor? Regularization()
    {
        using var scope = NewDisposeScope();
        var losses = Parts.Select(entry => entry.Part.Regularization()).OfType<Tensor>().ToList();
        if (losses.Count == 0)
        {
            return null;
        }

        var sum = losses.Aggregate((total, loss) => total.Plus(loss));
        return (((LoraConfig)Config).MontecloraConfig is null ? sum : sum.Times(1.0 / losses.Count)).MoveToOuterDisposeScope();
    }

    /// <summary>The file nests what adapts several parameters of one module: the first is innermost.</summary>
    private void AttachParameters(LoraConfig config, PretrainedModel model)
    {
        if (config.TargetParameters is not { Count: > 0 } names)
        {
            return;
        }

        var sites = model.Sites().OfType<Parameter>().Where(site => names.Any(name => ModuleSelector.EndsWithName(site.Path, name))).ToList();
        if (sites.Count == 0)
        {
            throw new AdapterException("target_parameters",
                $"No parameter matches {string.Join(", ", names)}. This model has {string.Join(", ", model.Sites().OfType<Parameter>().Select(site => site.ParameterName).Distinct())}.");
        }

        foreach (var module in sites.GroupBy(site => site.ModulePath))
        {
            foreach (var (site, i) in module.Select((site, i) => (site, i)))
            {
                Attach(site, new LoraParameter(config, site, module.Count() - 1 - i));
            }
        }
    }

    private void AttachTiedHeads(PretrainedModel model)
    {
        foreach (var (site, part) in Parts.Where(entry => entry.Part is LoraEmbedding).ToList())
        {
            foreach (var head in TokenRows.Tied(model, (Embedding)site))
            {
                if (part is DoraEmbedding)
                {
                    throw new AdapterException("ensure_weight_tying", $"A tied head cannot follow DoRA at {site.Path}. Remove use_dora or {site.Path}.");
                }

                if (Parts.Any(entry => entry.Site == head))
                {
                    throw new AdapterException("ensure_weight_tying", $"{head.Path} follows {site.Path} already. Remove it from target_modules.");
                }

                if (BaseLayerCopy.IsSavedAt(head, ((LoraConfig)Config).TargetModules!))
                {
                    Attach(head, new BaseLayerCopy(head));
                }

                Attach(head, new TiedLoraHead((LoraEmbedding)part, (Embedding)site));
                ((LoraEmbedding)part).HasTiedHead = true;
            }
        }
    }
}
