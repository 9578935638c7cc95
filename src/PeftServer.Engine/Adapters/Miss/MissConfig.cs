using System.ComponentModel.DataAnnotations;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters.Miss;

/// <summary>
/// MiSS (once Bone): slices of r inputs are summed and share one trained block; "bat" makes it depend on the weight, "mini" tiles it.
/// <see href="https://arxiv.org/abs/2409.15371">Kang and Yin 2024</see>.
/// </summary>
public sealed record MissConfig : TargetedConfig, IExcludesModules, ISelectsLayers, ITrainsBias
{
    /// <summary>Width of a slice of inputs.</summary>
    [Range(1, 4096)]
    public int R { get; init; } = 64;

    /// <summary>Chance that an input of the update is dropped in training.</summary>
    [Range(0.0, 0.99)]
    public double MissDropout { get; init; }

    /// <summary>With "mini": columns of the block before tiling; divides the outputs.</summary>
    [Range(1, 65536)]
    public int MiniR { get; init; } = 1;

    /// <summary>Modules left out although target_modules names them.</summary>
    public ModuleSelector? ExcludeModules { get; init; }

    /// <summary>Which biases of the base train too: none, all, or miss_only.</summary>
    [AllowedValues("none", "all", "miss_only")]
    public string Bias { get; init; } = "none";

    /// <summary>Adapt only these layers; needs a list in target_modules.</summary>
    public OneOrMany<int>? LayersToTransform { get; init; }

    /// <summary>Name of the list of layers, where it is not the usual one.</summary>
    public OneOrMany<string>? LayersPattern { get; init; }

    /// <summary>true: the block of MiSS; "bat" or "mini": that form of it; false: at random, for tests.</summary>
    [InitChoices("true", "false", "bat", "mini")]
    public InitChoice InitWeights { get; init; } = InitChoice.True;

    internal override MethodParts CreateParts(IReadOnlyList<Site> sites, PretrainedModel model) =>
        MethodParts.Each(sites, site => InitWeights.Name == "bat" ? new MissBatProjection(this, site) : new MissProjection(this, site));
}
