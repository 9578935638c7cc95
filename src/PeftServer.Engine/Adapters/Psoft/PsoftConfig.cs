using System.ComponentModel.DataAnnotations;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters.Psoft;

/// <summary>
/// PSOFT: ΔW = s·B(diag(b) R diag(a) − I)A, a rotation R within the weight's first singular directions, s = psoft_alpha / r.
/// <see href="https://openreview.net/forum?id=FSHrinMArK">PSOFT</see>.
/// </summary>
public sealed record PsoftConfig : TargetedConfig, IExcludesModules, ISelectsLayers
{
    /// <summary>Directions that are rotated, from 1 to 4096.</summary>
    [Range(1, 4096)]
    public int R { get; init; } = 32;

    /// <summary>The update is scaled by psoft_alpha / r; A and B undo it.</summary>
    [Range(1e-6, 1e6)]
    public double PsoftAlpha { get; init; } = 32;

    /// <summary>Chance that an input of the update is dropped in training.</summary>
    [Range(0.0, 0.99)]
    public double PsoftDropout { get; init; }

    /// <summary>Where singular values go: psoft_init: into B; pissa_init: their roots into A and B.</summary>
    [AllowedValues("psoft_init", "pissa_init")]
    public string AbSvdInit { get; init; } = "psoft_init";

    /// <summary>full, or lowrank: by power iteration from random_seed.</summary>
    [AllowedValues("full", "lowrank")]
    public string PsoftSvd { get; init; } = "full";

    /// <summary>Power iterations of "lowrank".</summary>
    [Range(0, 1000)]
    public int PsoftSvdLowrankNiter { get; init; } = 10;

    /// <summary>Seed of "lowrank".</summary>
    [Range(0L, long.MaxValue)]
    public long RandomSeed { get; init; }

    /// <summary>R is orthogonal; false: any matrix.</summary>
    public bool PsoftOrth { get; init; } = true;

    /// <summary>Train the scales a before R.</summary>
    public bool PsoftMagA { get; init; } = true;

    /// <summary>Train the scales b behind R.</summary>
    public bool PsoftMagB { get; init; } = true;

    /// <summary>R by a series instead of a solve.</summary>
    public bool UseCayleyNeumann { get; init; }

    /// <summary>Terms of the series.</summary>
    [Range(1, 64)]
    public int NumCayleyNeumannTerms { get; init; } = 5;

    /// <summary>Bound of the norm in the series, so that it converges; absent: none.</summary>
    [Range(1e-9, 1.0)]
    public double? CayleyNeumannEps { get; init; }

    /// <summary>Modules left out although target_modules names them.</summary>
    public ModuleSelector? ExcludeModules { get; init; }

    /// <summary>The base weight is stored (in, out). The layer knows by itself here.</summary>
    public bool FanInFanOut { get; init; }

    /// <summary>Start as the method prescribes; false: at random, for tests.</summary>
    public bool InitWeights { get; init; } = true;

    /// <summary>Adapt only these layers; needs a list in target_modules.</summary>
    public OneOrMany<int>? LayersToTransform { get; init; }

    /// <summary>Name of the list of layers, where it is not the usual one.</summary>
    public OneOrMany<string>? LayersPattern { get; init; }

    internal override MethodParts CreateParts(IReadOnlyList<Site> sites, PretrainedModel model) =>
        MethodParts.Each(sites, site => new PsoftProjection(this, site));
}
