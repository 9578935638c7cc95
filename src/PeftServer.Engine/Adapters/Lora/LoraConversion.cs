using PeftServer.Engine.Adapters.Miss;
using PeftServer.Engine.Models;
using PeftServer.Engine.Native;

namespace PeftServer.Engine.Adapters.Lora;

/// <summary>
/// An adapter of another method as a LoRA adapter, as near as a rank allows: PEFT's <c>convert_to_lora</c>. It goes where a method merges and leaves
/// biases alone. What the LoRA does is scaled by one.
/// </summary>
public static class LoraConversion
{
    /// <summary>
    /// Every change of a weight as one of <paramref name="rank"/>. Throws <see cref="AdapterException"/> or <see cref="NotSupportedException"/> where an
    /// adapter changes more than weights of linear layers. The caller disposes of the result.
    /// </summary>
    public static Adapter ToRank(Adapter adapter, int rank) => Convert(adapter, rank, 1);

    /// <summary>Each change by as few directions as make up <paramref name="share"/> of its sum of squares, so that ranks differ.</summary>
    public static Adapter ToShare(Adapter adapter, double share) => share is > 0 and <= 1
        ? Convert(adapter, null, share)
        : throw new AdapterException("rank", $"A share of what an adapter does is above 0 and at most 1, not {share}.");

    private static LoraAdapter Convert(Adapter adapter, int? rank, double share)
    {
        using var frozen = no_grad();
        using var scope = NewDisposeScope();
        var config = Checked(adapter);
        var changes = adapter.Parts.Where(entry => entry.Part is not (TrainableCopy or TrainableCopy.TiedHead or BaseLayerCopy))
            .Select(entry => (entry.Site.Path, Factors: Factors(entry.Site, entry.Part, rank, share, config))).ToList();
        var patterns = changes.Where(change => rank is null || change.Factors.A.size(0) != rank || config.TargetModules!.Names is null)
            .ToDictionary(change => change.Path, change => (int)change.Factors.A.size(0));
        var lora = new LoraAdapter(
            new LoraConfig
            {
                R = rank ?? 1,
                LoraAlpha = rank ?? 1,
                TargetModules = config.TargetModules!.Names is { } names
                    ? ModuleSelector.Of([.. names.Concat(changes.Select(change => change.Path).Where(path => !patterns.ContainsKey(path))).Distinct()])
                    : config.TargetModules,
                ExcludeModules = (config as IExcludesModules)?.ExcludeModules ?? ModuleSelector.Of(), // a list, as PEFT writes it
                LayersToTransform = (config as ISelectsLayers)?.LayersToTransform,
                LayersPattern = (config as ISelectsLayers)?.LayersPattern,
                ModulesToSave = config.ModulesToSave,
                RankPattern = patterns,
                AlphaPattern = patterns.ToDictionary(entry => entry.Key, entry => (double)entry.Value),
            }, adapter.Model);
        foreach (var (path, (a, b)) in changes)
        {
            ((LoraProjection)lora.Parts.Single(entry => entry.Site.Path == path && entry.Part is LoraProjection).Part).Set(a, b);
        }

        foreach (var (site, part) in lora.Parts.Where(entry => entry.Part is not LoraProjection))
        {
            Copy(adapter, site, part);
        }

        return lora;
    }

    private static TargetedConfig Checked(Adapter adapter) => adapter.Config switch
    {
        ITrainsBias { Bias: not "none" } => throw new AdapterException("bias", "An adapter that trains biases of the base cannot be turned into LoRA."),
        TargetedConfig { TargetModules: not null } config => config,
        _ => throw new AdapterException("peft_type", $"{adapter.Config.PeftType} changes no weights of its own, so it cannot be turned into LoRA."),
    };

    /// <summary>A [r, in] and B [out, r] of what the part adds to its weight.</summary>
    private static (Tensor A, Tensor B) Factors(Site site, SiteAdapter part, int? rank, double share, TargetedConfig config)
    {
        using var scope = NewDisposeScope();
        if (site is not Projection projection || !ReferenceEquals(part.MergeBias(site, site.Bias?.Value), site.Bias?.Value))
        {
            throw new AdapterException("target_modules", $"{config.PeftType} changes more than the weight of a linear layer at {site.Path}, so it cannot be turned into LoRA.");
        }

        var weight = projection.DenseWeight().to(ScalarType.Float32);
        var (u, s, vt) = LowRank.Svd(part.Merge(site, weight).Minus(weight));
        var count = part is MissProjection ? ((MissConfig)config).R : rank ?? CountOf(s, share); // MiSS is of its own rank, exactly
        if (count < 1 || count > s.size(0))
        {
            throw new AdapterException("rank", $"{count} is not between 1 and the {s.size(0)} directions of {site.Path}.");
        }

        return (vt.narrow(0, 0, count).clone().MoveToOuterDisposeScope(), LowRank.ScaleColumns(u.narrow(1, 0, count), s.narrow(0, 0, count)).MoveToOuterDisposeScope());
    }

    private static int CountOf(Tensor singular, double share)
    {
        var sums = singular.mul(singular).cumsum(0).data<float>().ToArray();
        var wanted = (float)(share * sums[^1]);
        return Array.FindIndex(sums, sum => sum >= wanted) + 1;
    }

    private static void Copy(Adapter adapter, Site site, SiteAdapter part)
    {
        var source = adapter.Parts.First(entry => entry.Site == site && entry.Part.GetType() == part.GetType()).Part;
        foreach (var ((_, from), (_, to)) in source.State.Zip(part.State))
        {
            to.Set(from.Value.clone());
        }
    }
}
