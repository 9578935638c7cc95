using System.ComponentModel.DataAnnotations;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters.Frod;

/// <summary>
/// FRoD: W′ = U(S + L)Vᵀ: V is shared by the modules of a kind in all layers, L diagonal and S sparse train.
/// <see href="https://github.com/huggingface/peft/tree/main/src/peft/tuners/frod">PEFT's description</see>.
/// </summary>
public sealed record FrodConfig : TargetedConfig, ISelectsLayers, ITrainsBias
{
    /// <summary>Seed of the places of S.</summary>
    [Range(0L, long.MaxValue)]
    public long ProjectionPrngKey { get; init; }

    /// <summary>Save V and the places; false: make them again from the base.</summary>
    public bool SaveProjection { get; init; } = true;

    /// <summary>Share of the places off the diagonal that S has.</summary>
    [Range(0.0, 1.0)]
    public double SparseRate { get; init; } = 0.01;

    /// <summary>Keeps the shared V steady where layers are alike.</summary>
    [Range(1e-12, 1e6)]
    public double RegularizationAlpha { get; init; } = 1e-3;

    /// <summary>Chance that an input of the update is dropped in training.</summary>
    [Range(0.0, 0.99)]
    public double FrodDropout { get; init; }

    /// <summary>PEFT's progress bar.</summary>
    public bool Progressbar { get; init; } = true;

    /// <summary>PEFT's way to spare memory; here the base stays where it is.</summary>
    public bool RuntimeOffloadBaseWeight { get; init; }

    /// <summary>The base weight is stored (in, out). The layer knows by itself here.</summary>
    public bool FanInFanOut { get; init; }

    /// <summary>Which biases of the base train too: none, all, or frod_only.</summary>
    [AllowedValues("none", "all", "frod_only")]
    public string Bias { get; init; } = "none";

    /// <summary>Start as the method prescribes; false: at random, for tests.</summary>
    public bool InitWeights { get; init; } = true;

    /// <summary>Adapt only these layers; needs a list in target_modules.</summary>
    public OneOrMany<int>? LayersToTransform { get; init; }

    /// <summary>Name of the list of layers, where it is not the usual one.</summary>
    public OneOrMany<string>? LayersPattern { get; init; }

    internal override MethodParts CreateParts(IReadOnlyList<Site> sites, PretrainedModel model) => FrodProjection.Create(this, sites);
}
