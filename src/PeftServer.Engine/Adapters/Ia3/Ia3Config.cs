using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters.Ia3;

/// <summary>
/// IA³: y = l ∘ (Wx), or W(l ∘ x) at feed-forward modules, with one trained vector l per module.
/// <see href="https://arxiv.org/abs/2205.05638">Liu et al. 2022</see>.
/// </summary>
public sealed record Ia3Config : TargetedConfig, IExcludesModules
{
    /// <summary>Modules left out although target_modules names them.</summary>
    public ModuleSelector? ExcludeModules { get; init; }

    /// <summary>The base weight is stored (in, out). The layer knows by itself here.</summary>
    public bool FanInFanOut { get; init; }

    /// <summary>Which of the target modules scale their input. Absent: PEFT's defaults for the model.</summary>
    public ModuleSelector? FeedforwardModules { get; init; }

    /// <summary>Start at ones; false: at random, for tests.</summary>
    public bool InitIa3Weights { get; init; } = true;


    protected override ModuleSelector DefaultTargets(PretrainedModel model) => Adapters.TargetModules.DefaultFor(model, "IA3");

    internal override TargetedConfig Resolved(PretrainedModel model) =>
        this with { FeedforwardModules = FeedforwardModules ?? Adapters.TargetModules.DefaultFor(model, "IA3 feed-forward") };

    internal override MethodParts CreateParts(IReadOnlyList<Site> sites, PretrainedModel model) =>
        MethodParts.Each(sites, site => new Ia3Projection(this, site));
}
