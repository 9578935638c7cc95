using System.ComponentModel.DataAnnotations;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters.WaveFt;

/// <summary>
/// WaveFT: ΔW = scaling · idwt(S), S a matrix with a few trained wavelet coefficients at random places.
/// <see href="https://arxiv.org/abs/2505.12532">Bilican et al. 2025</see>.
/// </summary>
public sealed record WaveFtConfig : TargetedConfig, IExcludesModules, ISelectsLayers, ITrainsBias
{
    /// <summary>How many coefficients train, at most out · in.</summary>
    [Range(1, int.MaxValue)]
    public int NFrequency { get; init; } = 2592;

    /// <summary>Factor of the update.</summary>
    [Range(1e-6, 1e9)]
    public double Scaling { get; init; } = 25;

    /// <summary>The wavelet: db1 (Haar's) to db10, sym2 to sym10, coif1 to coif4.</summary>
    public string WaveletFamily { get; init; } = "db1";

    /// <summary>Transform back; false: S itself is the update.</summary>
    public bool UseIdwt { get; init; } = true;

    /// <summary>Seed of the places.</summary>
    public long RandomLocSeed { get; init; } = 777;

    /// <summary>The base weight is stored (in, out). The layer knows by itself here.</summary>
    public bool FanInFanOut { get; init; }

    /// <summary>Which biases of the base train too: none, all, or waveft_only.</summary>
    [AllowedValues("none", "all", "waveft_only")]
    public string Bias { get; init; } = "none";

    /// <summary>Modules left out although target_modules names them.</summary>
    public ModuleSelector? ExcludeModules { get; init; }

    /// <summary>Adapt only these layers; needs a list in target_modules.</summary>
    public OneOrMany<int>? LayersToTransform { get; init; }

    /// <summary>Name of the list of layers, where it is not the usual one.</summary>
    public OneOrMany<string>? LayersPattern { get; init; }

    /// <summary>Counts of single modules: a name or regular expression to a count.</summary>
    public IReadOnlyDictionary<string, int> NFrequencyPattern { get; init; } = new Dictionary<string, int>();

    /// <summary>Share n_frequency times the modules among them by the size of their weights; n_frequency_pattern then says nothing.</summary>
    public bool ProportionalParameters { get; init; }

    /// <summary>Start at zero; false: at random.</summary>
    public bool InitWeights { get; init; } = true;

    public override IEnumerable<ValidationResult> Validate() => Wavelets.Names.Contains(WaveletFamily)
        ? []
        : [new($"wavelet_family is one of {string.Join(", ", Wavelets.Names)}.", ["wavelet_family"])];

    internal override MethodParts CreateParts(IReadOnlyList<Site> sites, PretrainedModel model)
    {
        var all = sites.Sum(site => Size(AsProjection(site)));
        var budget = (double)NFrequency * sites.Count;
        return MethodParts.Each(sites, site => new WaveFtProjection(this, site, ProportionalParameters
            ? Math.Max(1, (int)Math.Round(Size(site) / all * budget, MidpointRounding.ToEven))
            : Adapters.TargetModules.ByPattern(NFrequencyPattern, site.Path, NFrequency)));

        static double Size(Projection site) => (double)site.InFeatures * site.OutFeatures;
    }
}
