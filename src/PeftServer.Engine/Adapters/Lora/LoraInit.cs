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

    private static readonly string[] Known = ["true", "false", "gaussian", "orthogonal", "olora", "pissa"];

    private LoraInit(string name) => Name = name;

    /// <summary>"true", "false", or the name of a method.</summary>
    public string Name { get; }

    /// <summary>Throws <see cref="ArgumentException"/> for a name that is not supported.</summary>
    public static LoraInit Named(string name) =>
        Known.Contains(name) || (name.StartsWith("pissa_niter_", StringComparison.Ordinal) && int.TryParse(name["pissa_niter_".Length..], out _))
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
