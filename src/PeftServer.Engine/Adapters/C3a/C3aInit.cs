using System.Text.Json;
using System.Text.Json.Serialization;

namespace PeftServer.Engine.Adapters.C3a;

/// <summary>How C3A's kernels start: a name, or true for zeros (false: xavier_uniform).</summary>
[JsonConverter(typeof(C3aInitConverter))]
public sealed record C3aInit
{
    public static C3aInit XavierUniform { get; } = new("xavier_uniform");

    private static readonly string[] Known = ["xavier_uniform", "kaiming_uniform", "gaussian", "true", "false"];

    private C3aInit(string name) => Name = name;

    /// <summary>"true", "false", or the name of a distribution.</summary>
    public string Name { get; }

    private sealed class C3aInitConverter : JsonConverter<C3aInit>
    {
        public override C3aInit Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options)
        {
            var name = reader.TokenType switch
            {
                JsonTokenType.True => "true",
                JsonTokenType.False => "false",
                JsonTokenType.String => reader.GetString()!,
                _ => "",
            };
            return Known.Contains(name) ? new C3aInit(name) : throw new JsonException($"init_weights is one of {string.Join(", ", Known)}.");
        }

        public override void Write(Utf8JsonWriter writer, C3aInit value, JsonSerializerOptions options)
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
