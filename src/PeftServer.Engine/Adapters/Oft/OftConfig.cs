using System.ComponentModel.DataAnnotations;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters.Oft;

/// <summary>
/// OFT: y = W(Rx), R of orthogonal blocks by Cayley's transform of skew-symmetric ones.
/// <see href="https://arxiv.org/abs/2306.07280">Qiu et al. 2023</see>.
/// </summary>
public sealed record OftConfig : TargetedConfig, IExcludesModules, ISelectsLayers, ITrainsBias
{
    /// <summary>How many blocks; 0: as oft_block_size says.</summary>
    [Range(0, 65536)]
    public int R { get; init; }

    /// <summary>Side of a block; 0: as r says.</summary>
    [Range(0, 65536)]
    public int OftBlockSize { get; init; } = 32;

    /// <summary>PEFT's share of blocks to leave out in training. PEFT reads it and leaves out none, and so does this server.</summary>
    [Range(0.0, 0.99)]
    public double ModuleDropout { get; init; }

    /// <summary>The base weight is stored (in, out). The layer knows by itself here.</summary>
    public bool FanInFanOut { get; init; }

    /// <summary>Which biases of the base train too: none, all, or oft_only.</summary>
    [AllowedValues("none", "all", "oft_only")]
    public string Bias { get; init; } = "none";

    /// <summary>Modules left out although target_modules names them.</summary>
    public ModuleSelector? ExcludeModules { get; init; }

    /// <summary>Start as the method prescribes; false: at random, for tests.</summary>
    public bool InitWeights { get; init; } = true;

    /// <summary>Adapt only these layers; needs a list in target_modules.</summary>
    public OneOrMany<int>? LayersToTransform { get; init; }

    /// <summary>Name of the list of layers, where it is not the usual one.</summary>
    public OneOrMany<string>? LayersPattern { get; init; }

    /// <summary>Keep the blocks within eps of the identity.</summary>
    public bool Coft { get; init; }

    /// <summary>How far coft lets the blocks go.</summary>
    [Range(0.0, 1e3)]
    public double Eps { get; init; } = 6e-5;

    /// <summary>One block for all.</summary>
    public bool BlockShare { get; init; }

    /// <summary>Approximate Cayley's inverse by a Neumann series.</summary>
    public bool UseCayleyNeumann { get; init; } = true;

    /// <summary>Terms of that series.</summary>
    [Range(1, 64)]
    public int NumCayleyNeumannTerms { get; init; } = 5;

    internal override MethodParts CreateParts(IReadOnlyList<Site> sites, PretrainedModel model) =>
        new([.. sites.Select(site => site is Embedding table ? (SiteAdapter)new OftEmbedding(this, table) : new OftProjection(this, AsProjection(site)))]);
}
