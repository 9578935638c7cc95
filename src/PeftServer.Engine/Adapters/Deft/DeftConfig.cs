using System.ComponentModel.DataAnnotations;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters.Deft;

/// <summary>
/// DEFT: W′ = (I − P relu(P)ᵀ)W + P R: a subspace is taken out of the weight and filled anew.
/// <see href="https://github.com/huggingface/peft/tree/main/src/peft/tuners/deft">PEFT's description</see>.
/// </summary>
public sealed record DeftConfig : TargetedConfig, IExcludesModules, ISelectsLayers, ITrainsBias
{
    /// <summary>Rank of the update, from 1 to 4096.</summary>
    [Range(1, 4096)]
    public int R { get; init; } = 8;

    /// <summary>How P spans the subspace: relu or qr.</summary>
    [AllowedValues("relu", "qr")]
    public string DecompositionMethod { get; init; } = "relu";

    /// <summary>Deviation of R at the start, in units of 0.02, without init_weights.</summary>
    [Range(0.0, 1e6)]
    public double InitScale { get; init; } = 1;

    /// <summary>R is scaled by alpha / r; absent: by 1.</summary>
    [Range(1, 1000000)]
    public int? Alpha { get; init; }

    /// <summary>Only take the subspace out (PaRa).</summary>
    public bool Para { get; init; }

    /// <summary>Chance that an input of the update is dropped in training.</summary>
    [Range(0.0, 0.99)]
    public double DeftDropout { get; init; }

    /// <summary>Modules left out although target_modules names them.</summary>
    public ModuleSelector? ExcludeModules { get; init; }

    /// <summary>The base weight is stored (in, out). The layer knows by itself here.</summary>
    public bool FanInFanOut { get; init; }

    /// <summary>Which biases of the base train too: none, all, or deft_only.</summary>
    [AllowedValues("none", "all", "deft_only")]
    public string Bias { get; init; } = "none";

    /// <summary>Fill the subspace with what is taken out, so that nothing changes at first.</summary>
    public bool InitWeights { get; init; } = true;

    /// <summary>Adapt only these layers; needs a list in target_modules.</summary>
    public OneOrMany<int>? LayersToTransform { get; init; }

    /// <summary>Name of the list of layers, where it is not the usual one.</summary>
    public OneOrMany<string>? LayersPattern { get; init; }

    internal override MethodParts CreateParts(IReadOnlyList<Site> sites, PretrainedModel model) =>
        MethodParts.Each(sites, site => new DeftProjection(this, site));
}
