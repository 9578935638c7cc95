using System.ComponentModel.DataAnnotations;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters.RandLora;

/// <summary>
/// RandLoRA: ΔW = alpha / r · Σⱼ Bⱼ diag(λⱼ) A diag(γⱼ), full rank from random bases that all modules share; λ and γ train.
/// <see href="https://arxiv.org/abs/2502.00987">Albert et al. 2025</see>.
/// </summary>
public sealed record RandLoraConfig : TargetedConfig, ISelectsLayers, ITrainsBias
{
    /// <summary>Rank of one basis; smaller means more bases and more parameters.</summary>
    [Range(1, 4096)]
    public int R { get; init; } = 32;

    /// <summary>Seed of the bases.</summary>
    public long ProjectionPrngKey { get; init; }

    /// <summary>Save the bases; false: draw them again from the seed.</summary>
    public bool SaveProjection { get; init; } = true;

    /// <summary>Bases of -1, 0 and 1, a sixth of them each of the first and last.</summary>
    public bool Sparse { get; init; }

    /// <summary>The same with more zeros, the wider the modules.</summary>
    public bool VerySparse { get; init; }

    /// <summary>Chance that an input of the update is dropped in training.</summary>
    [Range(0.0, 0.99)]
    public double RandloraDropout { get; init; }

    /// <summary>The update is scaled by randlora_alpha / r.</summary>
    [Range(1e-6, 1e6)]
    public double RandloraAlpha { get; init; } = 640;

    /// <summary>The base weight is stored (in, out). The layer knows by itself here.</summary>
    public bool FanInFanOut { get; init; }

    /// <summary>Which biases of the base train too: none, all, or randlora_only.</summary>
    [AllowedValues("none", "all", "randlora_only")]
    public string Bias { get; init; } = "none";

    /// <summary>Start as the method prescribes; false: at random, for tests.</summary>
    public bool InitWeights { get; init; } = true;

    /// <summary>Adapt only these layers; needs a list in target_modules.</summary>
    public OneOrMany<int>? LayersToTransform { get; init; }

    /// <summary>Name of the list of layers, where it is not the usual one.</summary>
    public OneOrMany<string>? LayersPattern { get; init; }

    internal override MethodParts CreateParts(IReadOnlyList<Site> sites, PretrainedModel model) =>
        RandLoraProjection.Create(this, sites);
}
