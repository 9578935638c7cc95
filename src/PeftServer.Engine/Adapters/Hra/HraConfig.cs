using System.ComponentModel.DataAnnotations;
using System.Text.Json.Serialization;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters.Hra;

/// <summary>
/// HRA: y = W Π(I − 2uᵢuᵢᵀ)x, a chain of Householder reflections of the input.
/// <see href="https://arxiv.org/abs/2405.17484">Yuan et al. 2024</see>.
/// </summary>
public sealed record HraConfig : TargetedConfig, IExcludesModules, ISelectsLayers, ITrainsBias
{
    /// <summary>How many reflections; even, so that they can start in pairs that undo each other.</summary>
    [Range(1, 4096)]
    public int R { get; init; } = 8;

    /// <summary>Make the directions orthogonal (Gram–Schmidt).</summary>
    [JsonPropertyName("apply_GS")]
    public bool ApplyGs { get; init; }

    /// <summary>Modules left out although target_modules names them.</summary>
    public ModuleSelector? ExcludeModules { get; init; }

    /// <summary>Start as the method prescribes; false: at random, for tests.</summary>
    public bool InitWeights { get; init; } = true;

    /// <summary>Adapt only these layers; needs a list in target_modules.</summary>
    public OneOrMany<int>? LayersToTransform { get; init; }

    /// <summary>Name of the list of layers, where it is not the usual one.</summary>
    public OneOrMany<string>? LayersPattern { get; init; }

    /// <summary>Which biases of the base train too: none, all, or hra_only.</summary>
    [AllowedValues("none", "all", "hra_only")]
    public string Bias { get; init; } = "none";

    internal override MethodParts CreateParts(IReadOnlyList<Site> sites, PretrainedModel model) =>
        MethodParts.Each(sites, site => new HraProjection(this, site));
}
