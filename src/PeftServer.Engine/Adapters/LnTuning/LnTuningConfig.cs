using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters.LnTuning;

/// <summary>
/// LN tuning: the norms train, all else is frozen.
/// <see href="https://arxiv.org/abs/2312.11420">Zhao et al. 2023</see>.
/// </summary>
public sealed record LnTuningConfig : TargetedConfig, IExcludesModules
{
    /// <summary>Modules left out although target_modules names them.</summary>
    public ModuleSelector? ExcludeModules { get; init; }


    protected override ModuleSelector DefaultTargets(PretrainedModel model) => Adapters.TargetModules.DefaultFor(model, "LN_TUNING");

    internal override MethodParts CreateParts(IReadOnlyList<Site> sites, PretrainedModel model) =>
        new([.. sites.Select(site => new NormCopy(site))]);
}
