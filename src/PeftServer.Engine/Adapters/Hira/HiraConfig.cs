using System.ComponentModel.DataAnnotations;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters.Hira;

/// <summary>
/// HiRA: ΔW = W ∘ (BA), a Hadamard product with the frozen weight, so of high rank.
/// <see href="https://openreview.net/forum?id=TwJrTz9cRS">Huang et al. 2025</see>.
/// </summary>
public sealed record HiraConfig : TargetedConfig, IExcludesModules, ISelectsLayers
{
    /// <summary>Rank of the update, from 1 to 4096.</summary>
    [Range(1, 4096)]
    public int R { get; init; } = 32;

    /// <summary>Chance that an input of the update is dropped in training.</summary>
    [Range(0.0, 0.99)]
    public double HiraDropout { get; init; }

    /// <summary>Modules left out although target_modules names them.</summary>
    public ModuleSelector? ExcludeModules { get; init; }

    /// <summary>The base weight is stored (in, out). The layer knows by itself here.</summary>
    public bool FanInFanOut { get; init; }

    /// <summary>Start as the method prescribes, A as nn.Linear does or "gaussian", B at zero; false: both at random, for tests.</summary>
    [InitChoices("true", "false", "gaussian")]
    public InitChoice InitWeights { get; init; } = InitChoice.True;

    /// <summary>Adapt only these layers; needs a list in target_modules.</summary>
    public OneOrMany<int>? LayersToTransform { get; init; }

    /// <summary>Name of the list of layers, where it is not the usual one.</summary>
    public OneOrMany<string>? LayersPattern { get; init; }

    /// <summary>PEFT's field for ranks of single modules, which PEFT 0.21 reads and does not use: all have r. Not for a job.</summary>
    public IReadOnlyDictionary<string, int> RankPattern { get; init; } = new Dictionary<string, int>();

    public override IEnumerable<ValidationResult> Validate() => RankPattern.Count == 0 || InferenceMode ? []
        : [new("rank_pattern says nothing for HIRA: PEFT gives all modules the rank r. Remove it.", ["rank_pattern"])];

    internal override MethodParts CreateParts(IReadOnlyList<Site> sites, PretrainedModel model) =>
        new([.. sites.Select(site => site is Embedding table ? (SiteAdapter)new HiraEmbedding(this, table) : new HiraProjection(this, AsProjection(site)))]);
}
