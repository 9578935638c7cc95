using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters.Beft;

/// <summary>
/// BEFT: y = Wx + b with a trained b, at the value projections.
/// <see href="https://arxiv.org/abs/2509.15974">Huang et al. 2025</see>.
/// </summary>
public sealed record BeftConfig : TargetedConfig
{
    /// <summary>Start as the method prescribes; false: at random, for tests.</summary>
    public bool InitWeights { get; init; } = true;


    protected override ModuleSelector DefaultTargets(PretrainedModel model) => Adapters.TargetModules.DefaultFor(model, "BEFT");

    internal override MethodParts CreateParts(IReadOnlyList<Site> sites, PretrainedModel model) =>
        MethodParts.Each(sites, site => new BeftProjection(this, site));
}
