using System.ComponentModel.DataAnnotations;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters.Boft;

/// <summary>
/// BOFT: y = s ∘ W(Rx), R a product of orthogonal block matrices in butterfly order.
/// <see href="https://arxiv.org/abs/2311.06243">Liu et al. 2023</see>.
/// </summary>
public sealed record BoftConfig : TargetedConfig, IExcludesModules, ISelectsLayers, ITrainsBias
{
    /// <summary>Side of a block; 0: as boft_block_num says.</summary>
    [Range(0, 65536)]
    public int BoftBlockSize { get; init; } = 4;

    /// <summary>How many blocks; 0: as boft_block_size says.</summary>
    [Range(0, 65536)]
    public int BoftBlockNum { get; init; }

    /// <summary>Factors of the product. PEFT uses 1 where it lacks its CUDA kernel; so does this server, and files agree.</summary>
    [Range(1, 64)]
    public int BoftNButterflyFactor { get; init; } = 1;

    /// <summary>Share of the blocks that turn nothing in a step of training: other ones at every module and step.</summary>
    [Range(0.0, 0.99)]
    public double BoftDropout { get; init; }

    /// <summary>Modules left out although target_modules names them.</summary>
    public ModuleSelector? ExcludeModules { get; init; }

    /// <summary>The base weight is stored (in, out). The layer knows by itself here.</summary>
    public bool FanInFanOut { get; init; }

    /// <summary>Which biases of the base train too: none, all, or boft_only.</summary>
    [AllowedValues("none", "all", "boft_only")]
    public string Bias { get; init; } = "none";

    /// <summary>Start as the method prescribes; false: at random, for tests.</summary>
    public bool InitWeights { get; init; } = true;

    /// <summary>Adapt only these layers; needs a list in target_modules.</summary>
    public OneOrMany<int>? LayersToTransform { get; init; }

    /// <summary>Name of the list of layers, where it is not the usual one.</summary>
    public OneOrMany<string>? LayersPattern { get; init; }

    internal override MethodParts CreateParts(IReadOnlyList<Site> sites, PretrainedModel model) =>
        MethodParts.Each(sites, site => new BoftProjection(this, site));
}
