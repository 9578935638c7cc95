using System.ComponentModel.DataAnnotations;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters.FourierFt;

/// <summary>
/// FourierFT: ΔW = scaling · Re(ifft2(S)), S a matrix with a few trained frequencies at random places.
/// <see href="https://arxiv.org/abs/2405.03003">Gao et al. 2024</see>.
/// </summary>
public sealed record FourierFtConfig : TargetedConfig, IExcludesModules, ISelectsLayers, ITrainsBias
{
    /// <summary>How many frequencies train, at most out · in.</summary>
    [Range(1, int.MaxValue)]
    public int NFrequency { get; init; } = 1000;

    /// <summary>Factor of the update.</summary>
    [Range(1e-6, 1e9)]
    public double Scaling { get; init; } = 150;

    /// <summary>Seed of the places.</summary>
    public long RandomLocSeed { get; init; } = 777;

    /// <summary>The base weight is stored (in, out). The layer knows by itself here.</summary>
    public bool FanInFanOut { get; init; }

    /// <summary>Which biases of the base train too: none, all, or fourier_only.</summary>
    [AllowedValues("none", "all", "fourier_only")]
    public string Bias { get; init; } = "none";

    /// <summary>Modules left out although target_modules names them.</summary>
    public ModuleSelector? ExcludeModules { get; init; }

    /// <summary>Adapt only these layers; needs a list in target_modules.</summary>
    public OneOrMany<int>? LayersToTransform { get; init; }

    /// <summary>Name of the list of layers, where it is not the usual one.</summary>
    public OneOrMany<string>? LayersPattern { get; init; }

    /// <summary>Counts of single modules: a name or regular expression to a count.</summary>
    public IReadOnlyDictionary<string, int> NFrequencyPattern { get; init; } = new Dictionary<string, int>();

    /// <summary>Start at zero. By default the frequencies start at random, so the first outputs differ from the base.</summary>
    public bool InitWeights { get; init; }

    internal override MethodParts CreateParts(IReadOnlyList<Site> sites, PretrainedModel model) =>
        MethodParts.Each(sites, site => new FourierFtProjection(this, site));
}
