using System.ComponentModel.DataAnnotations;
using System.Text.Json.Serialization;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters.Glora;

/// <summary>
/// GLoRA: W′ = W + W∘A + B and b′ = b + b∘D + E + WC, each of A … E of low rank, a vector, a constant or none.
/// <see href="https://arxiv.org/abs/2306.07967">Chavan et al. 2023</see>.
/// </summary>
public sealed record GloraConfig : TargetedConfig, ITrainsBias
{
    /// <summary>Rank of the update, from 1 to 4096.</summary>
    [Range(1, 4096)]
    public int R { get; init; } = 8;

    /// <summary>Form of A and B: lora, vector, constant or none.</summary>
    [AllowedValues("lora", "vector", "constant", "none")]
    [JsonPropertyName("config_A_B")]
    public string ConfigAB { get; init; } = "lora";

    /// <summary>Form of C, at modules with a bias: lora, vector or none.</summary>
    [AllowedValues("lora", "vector", "none")]
    [JsonPropertyName("config_C")]
    public string ConfigC { get; init; } = "lora";

    /// <summary>Form of D and E, at modules with a bias: vector, constant or none.</summary>
    [AllowedValues("vector", "constant", "none")]
    [JsonPropertyName("config_D_E")]
    public string ConfigDE { get; init; } = "constant";

    /// <summary>Which biases of the base train too: none, all, or glora_only.</summary>
    [AllowedValues("none", "all", "glora_only")]
    public string Bias { get; init; } = "none";

    /// <summary>Start as the method prescribes; false: at random, for tests.</summary>
    public bool InitWeights { get; init; } = true;

    internal override MethodParts CreateParts(IReadOnlyList<Site> sites, PretrainedModel model) =>
        MethodParts.Each(sites, site => new GloraProjection(this, site));
}
