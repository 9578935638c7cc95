using System.Text.Json;
using System.Text.Json.Serialization;

namespace PeftServer.Engine.Adapters.Lora;

/// <summary>
/// PEFT's <c>init_lora_weights</c>: true (A Kaiming-uniform, B zero), false (both random) or a name.
/// </summary>
[JsonConverter(typeof(LoraInitConverter))]
public sealed record LoraInit
{
    public static LoraInit Default { get; } = new("true");

    public static LoraInit Random { get; } = new("false");

    private static readonly string[] Known =
        ["true", "false", "gaussian", "orthogonal", "olora", "pissa", "mica", "loftq", "eva", "corda", "lora_ga"];

    private LoraInit(string name) => Name = name;

    /// <summary>"true", "false", or the name of a method.</summary>
    public string Name { get; }

    /// <summary>Whether A and B start from what the model makes of the training data.</summary>
    [JsonIgnore]
    public bool IsFromData => Name is "eva" or "corda" or "lora_ga";

    /// <summary>Whether the base loses what A and B start as, so that the sum stays what it was.</summary>
    [JsonIgnore]
    public bool TakesFromBase => Name is "olora" or "loftq" or "corda" or "lora_ga" || Name.StartsWith("pissa", StringComparison.Ordinal);

    /// <summary>Whether the start is made for A (r, in) and B (out, r) and nothing else.</summary>
    [JsonIgnore]
    public bool NeedsPlainShapes => Name is not ("true" or "false" or "gaussian");

    /// <summary>
    /// Whether only the adapter as it began can tell what the base lost: it came from data, or from draws that PEFT makes of a generator without a
    /// seed.
    /// </summary>
    [JsonIgnore]
    public bool NeedsStart => Name is "corda" or "lora_ga" || Iterations is not null;

    /// <summary>Power iterations of "pissa_niter_N"; null: the whole decomposition.</summary>
    [JsonIgnore]
    public int? Iterations => Name.StartsWith("pissa_niter_", StringComparison.Ordinal)
        ? int.Parse(Name["pissa_niter_".Length..], System.Globalization.CultureInfo.InvariantCulture)
        : null;

    /// <summary>Throws <see cref="ArgumentException"/> for a name that is not supported.</summary>
    public static LoraInit Named(string name) =>
        Known.Contains(name) || (name.StartsWith("pissa_niter_", StringComparison.Ordinal) && int.TryParse(name["pissa_niter_".Length..], out var rounds) && rounds is >= 0 and <= 1000)
            ? new LoraInit(name)
            : throw new ArgumentException($"init_lora_weights '{name}' is not supported. Use {string.Join(", ", Known)} or pissa_niter_N.");

    private sealed class LoraInitConverter : JsonConverter<LoraInit>
    {
        public override LoraInit Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options)
        {
            try
            {
                return reader.TokenType switch
                {
                    JsonTokenType.True => Default,
                    JsonTokenType.False => Random,
                    JsonTokenType.String => Named(reader.GetString()!),
                    _ => throw new JsonException("init_lora_weights is true, false or a name."),
                };
            }
            catch (ArgumentException e)
            {
                throw new JsonException(e.Message, e);
            }
        }

        public override void Write(Utf8JsonWriter writer, LoraInit value, JsonSerializerOptions options)
        {
            if (value.Name is "true" or "false")
            {
                writer.WriteBooleanValue(value.Name == "true");
                return;
            }

            writer.WriteStringValue(value.Name);
        }
    }
}
