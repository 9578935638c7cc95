using System.ComponentModel.DataAnnotations;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters.UniLora;

/// <summary>
/// Uni-LoRA: every entry of every A and B is one of a few trained numbers, chosen by a fixed random map.
/// <see href="https://arxiv.org/abs/2506.00799">Li et al. 2025</see>.
/// </summary>
public sealed record UniLoraConfig : TargetedConfig, ISelectsLayers, ITrainsBias
{
    /// <summary>Rank of the update, from 1 to 4096.</summary>
    [Range(1, 4096)]
    public int R { get; init; } = 4;

    /// <summary>Seed of the map.</summary>
    [Range(0L, long.MaxValue)]
    public long ProjSeed { get; init; } = 42;

    /// <summary>How many numbers train.</summary>
    [Range(1, 1 << 28)]
    public int ThetaDLength { get; init; } = 256;

    /// <summary>They start within this bound of zero.</summary>
    [Range(0.0, 1e6)]
    public double InitThetaDBound { get; init; } = 0.02;

    /// <summary>Chance that an input of the update is dropped in training.</summary>
    [Range(0.0, 0.99)]
    public double UniloraDropout { get; init; }

    /// <summary>The base weight is stored (in, out). The layer knows by itself here.</summary>
    public bool FanInFanOut { get; init; }

    /// <summary>Which biases of the base train too: none, all, or unilora_only.</summary>
    [AllowedValues("none", "all", "unilora_only")]
    public string Bias { get; init; } = "none";

    /// <summary>Start as the method prescribes; false: at random, for tests.</summary>
    public bool InitWeights { get; init; } = true;

    /// <summary>Save the map; false: draw it again from the seed.</summary>
    public bool SaveIndices { get; init; }

    /// <summary>Adapt only these layers; needs a list in target_modules.</summary>
    public OneOrMany<int>? LayersToTransform { get; init; }

    /// <summary>Name of the list of layers, where it is not the usual one.</summary>
    public OneOrMany<string>? LayersPattern { get; init; }

    internal override MethodParts CreateParts(IReadOnlyList<Site> sites, PretrainedModel model) => UniLoraProjection.Create(this, sites);
}
