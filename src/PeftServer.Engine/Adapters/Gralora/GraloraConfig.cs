using System.ComponentModel.DataAnnotations;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters.Gralora;

/// <summary>
/// GraLoRA: ΔW of k × k blocks, each with its own update of rank r / k; hybrid_r adds a plain one.
/// <see href="https://arxiv.org/abs/2505.20355">Jung et al. 2025</see>.
/// </summary>
public sealed record GraloraConfig : TargetedConfig, ISelectsLayers, ITrainsBias
{
    /// <summary>Rank of the update, from 1 to 4096.</summary>
    [Range(1, 4096)]
    public int R { get; init; } = 32;

    /// <summary>Rank of the plain update beside the blocks.</summary>
    [Range(0, 4096)]
    public int HybridR { get; init; }

    /// <summary>The update is scaled by alpha / (r + hybrid_r).</summary>
    [Range(1e-6, 1e6)]
    public double Alpha { get; init; } = 64;

    /// <summary>Chance that an input of the update is dropped in training.</summary>
    [Range(0.0, 0.99)]
    public double GraloraDropout { get; init; }

    /// <summary>Blocks along each side; divides r and both sides of every adapted weight.</summary>
    [Range(1, 4096)]
    public int GraloraK { get; init; } = 2;

    /// <summary>The base weight is stored (in, out). The layer knows by itself here.</summary>
    public bool FanInFanOut { get; init; }

    /// <summary>Which biases of the base train too: none, all, or gralora_only.</summary>
    [AllowedValues("none", "all", "gralora_only")]
    public string Bias { get; init; } = "none";

    /// <summary>Start as the method prescribes; false: at random, for tests.</summary>
    public bool InitWeights { get; init; } = true;

    /// <summary>Adapt only these layers; needs a list in target_modules.</summary>
    public OneOrMany<int>? LayersToTransform { get; init; }

    /// <summary>Name of the list of layers, where it is not the usual one.</summary>
    public OneOrMany<string>? LayersPattern { get; init; }

    internal override MethodParts CreateParts(IReadOnlyList<Site> sites, PretrainedModel model) =>
        MethodParts.Each(sites, site => new GraloraProjection(this, site));
}
