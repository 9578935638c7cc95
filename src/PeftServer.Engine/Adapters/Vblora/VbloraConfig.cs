using System.ComponentModel.DataAnnotations;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters.Vblora;

/// <summary>
/// VB-LoRA: every sub-vector of A and B is a mix of the topk best of a bank of vectors that all modules share.
/// <see href="https://arxiv.org/abs/2405.15179">Li et al. 2024</see>.
/// </summary>
public sealed record VbloraConfig : TargetedConfig, IExcludesModules, ISelectsLayers, ITrainsBias
{
    /// <summary>Rank of the update, from 1 to 4096.</summary>
    [Range(1, 4096)]
    public int R { get; init; } = 4;

    /// <summary>Vectors in the bank.</summary>
    [Range(1, 1000000)]
    public int NumVectors { get; init; } = 256;

    /// <summary>Length of a vector; divides both sides of every adapted weight.</summary>
    [Range(1, 65536)]
    public int VectorLength { get; init; } = 256;

    /// <summary>Vectors in a mix.</summary>
    [Range(1, 65536)]
    public int Topk { get; init; } = 2;

    /// <summary>Save which vectors are in a mix, and how much of each, instead of the logits: a smaller file, which cannot train on.</summary>
    public bool SaveOnlyTopkWeights { get; init; }

    /// <summary>Chance that an input of the update is dropped in training.</summary>
    [Range(0.0, 0.99)]
    public double VbloraDropout { get; init; }

    /// <summary>Modules left out although target_modules names them.</summary>
    public ModuleSelector? ExcludeModules { get; init; }

    /// <summary>The base weight is stored (in, out). The layer knows by itself here.</summary>
    public bool FanInFanOut { get; init; }

    /// <summary>Which biases of the base train too: none, all, or vblora_only.</summary>
    [AllowedValues("none", "all", "vblora_only")]
    public string Bias { get; init; } = "none";

    /// <summary>The bank starts uniform within this bound.</summary>
    [Range(0.0, 1e6)]
    public double InitVectorBankBound { get; init; } = 0.02;

    /// <summary>Deviation of the logits at the start.</summary>
    [Range(0.0, 1e6)]
    public double InitLogitsStd { get; init; } = 0.1;

    /// <summary>Adapt only these layers; needs a list in target_modules.</summary>
    public OneOrMany<int>? LayersToTransform { get; init; }

    /// <summary>Name of the list of layers, where it is not the usual one.</summary>
    public OneOrMany<string>? LayersPattern { get; init; }

    internal override MethodParts CreateParts(IReadOnlyList<Site> sites, PretrainedModel model) =>
        VbloraProjection.Create(this, sites);
}
