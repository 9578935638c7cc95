using System.ComponentModel.DataAnnotations;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters.Loha;

/// <summary>
/// LoHa: ΔW = alpha / r · (A₁B₁) ∘ (A₂B₂), the Hadamard product of two products of low rank.
/// <see href="https://arxiv.org/abs/2108.06098">Hyeon-Woo et al. 2021</see>.
/// </summary>
public sealed record LohaConfig : TargetedConfig, IExcludesModules, ISelectsLayers
{
    /// <summary>Rank of the update, from 1 to 4096.</summary>
    [Range(1, 4096)]
    public int R { get; init; } = 8;

    /// <summary>The update is scaled by alpha / r.</summary>
    [Range(1e-6, 1e6)]
    public double Alpha { get; init; } = 8;

    /// <summary>Chance that a row of ΔW is dropped in training.</summary>
    [Range(0.0, 0.99)]
    public double RankDropout { get; init; }

    /// <summary>Chance that a module is left out of a step in training.</summary>
    [Range(0.0, 0.99)]
    public double ModuleDropout { get; init; }

    /// <summary>Another decomposition for convolutions; linear layers do not see it.</summary>
    public bool UseEffectiveConv2d { get; init; }

    /// <summary>Modules left out although target_modules names them.</summary>
    public ModuleSelector? ExcludeModules { get; init; }

    /// <summary>Start as the method prescribes; false: at random, for tests.</summary>
    public bool InitWeights { get; init; } = true;

    /// <summary>Adapt only these layers; needs a list in target_modules.</summary>
    public OneOrMany<int>? LayersToTransform { get; init; }

    /// <summary>Name of the list of layers, where it is not the usual one.</summary>
    public OneOrMany<string>? LayersPattern { get; init; }

    /// <summary>Ranks of single modules: a name or regular expression to a rank. The first match wins.</summary>
    public IReadOnlyDictionary<string, int> RankPattern { get; init; } = new Dictionary<string, int>();

    /// <summary>Alphas of single modules, as rank_pattern.</summary>
    public IReadOnlyDictionary<string, double> AlphaPattern { get; init; } = new Dictionary<string, double>();

    internal override MethodParts CreateParts(IReadOnlyList<Site> sites, PretrainedModel model) =>
        MethodParts.Each(sites, site => new LohaProjection(this, site));
}
