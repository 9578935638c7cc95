using System.Text.Json;
using System.Text.Json.Serialization;

namespace PeftServer.Engine.Adapters.Miss;

/// <summary>Which form of MiSS trains: true, "bat" or "mini"; false: the first, started at random.</summary>
[JsonConverter(typeof(MissInitConverter))]
public sealed record MissInit
{
    public static MissInit Miss { get; } = new("true");

    private static readonly string[] Known = ["true", "false", "bat", "mini"];

    private MissInit(string name) => Name = name;

    /// <summary>"true", "false", or the name of a form.</summary>
    public string Name { get; }

    private sealed class MissInitConverter : JsonConverter<MissInit>
    {
        public override MissInit Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options)
        {
            var name = reader.TokenType switch
            {
                JsonTokenType.True => "true",
                JsonTokenType.False => "false",
                JsonTokenType.String => reader.GetString()!,
                _ => "",
            };
            return Known.Contains(name) ? new MissInit(name) : throw new JsonException($"init_weights is one of {string.Join(", ", Known)}.");
        }

        public override void Write(Utf8JsonWriter writer, MissInit value, JsonSerializerOptions options)
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
