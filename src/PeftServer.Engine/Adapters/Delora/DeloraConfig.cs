using System.ComponentModel.DataAnnotations;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters.Delora;

/// <summary>
/// DeLoRA: ΔW = λ / r · Σᵢ bᵢaᵢᵀ / (‖bᵢ‖‖aᵢ‖) · diag(‖W‖), directions and strength apart.
/// <see href="https://arxiv.org/abs/2503.18225">Bini et al. 2025</see>.
/// </summary>
public sealed record DeloraConfig : TargetedConfig, IExcludesModules, ISelectsLayers, ITrainsBias
{
    /// <summary>Rank of the update, from 1 to 4096.</summary>
    [Range(1, 4096)]
    public int R { get; init; } = 8;

    /// <summary>Where the strength λ starts: the bound of the update.</summary>
    [Range(1e-6, 1e6)]
    public double DeloraLambda { get; init; } = 15;

    /// <summary>Chance that an input of the update is dropped in training.</summary>
    [Range(0.0, 0.99)]
    public double ModuleDropout { get; init; }

    /// <summary>Modules left out although target_modules names them.</summary>
    public ModuleSelector? ExcludeModules { get; init; }

    /// <summary>Which biases of the base train too: none, all, or delora_only.</summary>
    [AllowedValues("none", "all", "delora_only")]
    public string Bias { get; init; } = "none";

    /// <summary>Start as the method prescribes; false: at random, for tests.</summary>
    public bool InitWeights { get; init; } = true;

    /// <summary>Adapt only these layers; needs a list in target_modules.</summary>
    public OneOrMany<int>? LayersToTransform { get; init; }

    /// <summary>Name of the list of layers, where it is not the usual one.</summary>
    public OneOrMany<string>? LayersPattern { get; init; }

    /// <summary>Ranks of single modules: a name or regular expression to a rank. The first match wins.</summary>
    public IReadOnlyDictionary<string, int> RankPattern { get; init; } = new Dictionary<string, int>();

    /// <summary>Strengths of single modules, as rank_pattern.</summary>
    public IReadOnlyDictionary<string, double> LambdaPattern { get; init; } = new Dictionary<string, double>();

    internal override MethodParts CreateParts(IReadOnlyList<Site> sites, PretrainedModel model) =>
        MethodParts.Each(sites, site => new DeloraProjection(this, site));
}
