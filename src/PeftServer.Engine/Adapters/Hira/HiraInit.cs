using System.Text.Json;
using System.Text.Json.Serialization;

namespace PeftServer.Engine.Adapters.Hira;

/// <summary>How HiRA's factors start: true (B at zero), "gaussian" (the same, A normal), false or null (both at random, for tests).</summary>
[JsonConverter(typeof(HiraInitConverter))]
public sealed record HiraInit
{
    public static HiraInit Default { get; } = new("true");

    private static readonly string[] Known = ["true", "false", "gaussian"];

    private HiraInit(string name) => Name = name;

    /// <summary>"true", "false" or "gaussian".</summary>
    public string Name { get; }

    private sealed class HiraInitConverter : JsonConverter<HiraInit>
    {
        public override bool HandleNull => true;

        public override HiraInit Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options)
        {
            var name = reader.TokenType switch
            {
                JsonTokenType.True => "true",
                JsonTokenType.False or JsonTokenType.Null => "false",
                JsonTokenType.String => reader.GetString()!,
                _ => "",
            };
            return Known.Contains(name) ? new HiraInit(name) : throw new JsonException($"init_weights is one of {string.Join(", ", Known)}.");
        }

        public override void Write(Utf8JsonWriter writer, HiraInit value, JsonSerializerOptions options)
        {
            if (value.Name == "gaussian")
            {
                writer.WriteStringValue(value.Name);
                return;
            }

            writer.WriteBooleanValue(value.Name == "true");
        }
    }
}
