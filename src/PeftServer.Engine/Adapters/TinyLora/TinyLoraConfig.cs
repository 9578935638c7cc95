using System.ComponentModel.DataAnnotations;
using System.Text.Json;
using System.Text.Json.Serialization;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters.TinyLora;

/// <summary>
/// TinyLoRA: ΔW = B(Σᵢ vᵢPᵢ)A with A and B from the weight's first singular directions, P random, and only v trained.
/// <see href="https://arxiv.org/abs/2602.04118">Morris et al. 2026</see>.
/// </summary>
public sealed record TinyLoraConfig : TargetedConfig, ISelectsLayers, ITrainsBias
{
    /// <summary>Singular directions that are used, from 1 to 4096.</summary>
    [Range(1, 4096)]
    public int R { get; init; } = 2;

    /// <summary>Length of v.</summary>
    [Range(1, 65536)]
    public int U { get; init; } = 64;

    /// <summary>Share of the modules that use another's v: 0 is one v a module, 1 one for all.</summary>
    [Range(0.0, 1.0)]
    public double WeightTying { get; init; }

    /// <summary>Seed of P; each module adds its number.</summary>
    [Range(0L, long.MaxValue)]
    public long ProjectionSeed { get; init; } = 42;

    /// <summary>Save P; false: draw it again from the seed.</summary>
    public bool SaveProjection { get; init; } = true;

    /// <summary>v starts within this bound of zero, with init_weights "uniform".</summary>
    [Range(0.0, 1e6)]
    public double InitVBound { get; init; } = 0.02;

    /// <summary>Chance that an input of the update is dropped in training.</summary>
    [Range(0.0, 0.99)]
    public double TinyloraDropout { get; init; }

    /// <summary>The base weight is stored (in, out). The layer knows by itself here.</summary>
    public bool FanInFanOut { get; init; }

    /// <summary>Which biases of the base train too: none, all, or tinylora_only.</summary>
    [AllowedValues("none", "all", "tinylora_only")]
    public string Bias { get; init; } = "none";

    /// <summary>true: v starts at zero; "uniform": within init_v_bound.</summary>
    public TinyLoraInit InitWeights { get; init; } = TinyLoraInit.Zero;

    /// <summary>Adapt only these layers; needs a list in target_modules.</summary>
    public OneOrMany<int>? LayersToTransform { get; init; }

    /// <summary>Name of the list of layers, where it is not the usual one.</summary>
    public OneOrMany<string>? LayersPattern { get; init; }

    internal override MethodParts CreateParts(IReadOnlyList<Site> sites, PretrainedModel model) => TinyLoraProjection.Create(this, sites);
}

/// <summary>How v starts: true (at zero) or "uniform".</summary>
[JsonConverter(typeof(TinyLoraInitConverter))]
public sealed record TinyLoraInit
{
    private TinyLoraInit(bool isZero) => IsZero = isZero;

    public static TinyLoraInit Zero { get; } = new(true);

    public static TinyLoraInit Uniform { get; } = new(false);

    [JsonIgnore]
    public bool IsZero { get; }

    private sealed class TinyLoraInitConverter : JsonConverter<TinyLoraInit>
    {
        public override TinyLoraInit Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options) => reader.TokenType switch
        {
            JsonTokenType.True => Zero,
            JsonTokenType.String when reader.GetString() == "uniform" => Uniform,
            _ => throw new JsonException("init_weights is true or \"uniform\"."),
        };

        public override void Write(Utf8JsonWriter writer, TinyLoraInit value, JsonSerializerOptions options)
        {
            if (value.IsZero)
            {
                writer.WriteBooleanValue(true);
                return;
            }

            writer.WriteStringValue("uniform");
        }
    }
}
