using System.ComponentModel.DataAnnotations;
using System.Text.Json;
using System.Text.Json.Serialization;

namespace PeftServer.Engine.Adapters;

/// <summary>How a method's weights start, as PEFT's <c>init_weights</c> says it: true, false (null is the same), or a name.</summary>
[JsonConverter(typeof(InitChoiceConverter))]
public sealed record InitChoice
{
    private InitChoice(string name) => Name = name;

    public static InitChoice True { get; } = new("true");

    /// <summary>"true", "false", or a name.</summary>
    public string Name { get; }

    public static InitChoice Named(string name) => new(name);

    private sealed class InitChoiceConverter : JsonConverter<InitChoice>
    {
        public override bool HandleNull => true;

        public override InitChoice Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options) => reader.TokenType switch
        {
            JsonTokenType.True => True,
            JsonTokenType.False or JsonTokenType.Null => new("false"),
            JsonTokenType.String => new(reader.GetString()!),
            _ => throw new JsonException("init_weights is true, false or a name."),
        };

        public override void Write(Utf8JsonWriter writer, InitChoice value, JsonSerializerOptions options)
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

/// <summary>The choices that a method has.</summary>
[AttributeUsage(AttributeTargets.Property)]
internal sealed class InitChoicesAttribute(params string[] names) : ValidationAttribute
{
    public override bool IsValid(object? value) => value is InitChoice choice && names.Contains(choice.Name);

    public override string FormatErrorMessage(string name) => $"{JsonNamingPolicy.SnakeCaseLower.ConvertName(name)} is one of {string.Join(", ", names)}.";
}
