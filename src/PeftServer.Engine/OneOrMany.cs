using System.Text.Json;
using System.Text.Json.Serialization;

namespace PeftServer.Engine;

/// <summary>A JSON value that may be one thing or a list of them, and is written as it came.</summary>
[JsonConverter(typeof(OneOrManyConverterFactory))]
public sealed record OneOrMany<T>(IReadOnlyList<T> Values, bool IsOne)
{
    public bool Equals(OneOrMany<T>? other) => other is not null && IsOne == other.IsOne && Values.SequenceEqual(other.Values);

    public override int GetHashCode() => Values.Count;
}

internal sealed class OneOrManyConverterFactory : JsonConverterFactory
{
    public override bool CanConvert(Type typeToConvert) =>
        typeToConvert.IsGenericType && typeToConvert.GetGenericTypeDefinition() == typeof(OneOrMany<>);

    public override JsonConverter CreateConverter(Type typeToConvert, JsonSerializerOptions options) =>
        (JsonConverter)Activator.CreateInstance(typeof(OneOrManyConverter<>).MakeGenericType(typeToConvert.GetGenericArguments()))!;

    private sealed class OneOrManyConverter<T> : JsonConverter<OneOrMany<T>>
    {
        public override OneOrMany<T> Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options) =>
            reader.TokenType is JsonTokenType.StartArray
                ? new(JsonSerializer.Deserialize<T[]>(ref reader, options)!, IsOne: false)
                : new([JsonSerializer.Deserialize<T>(ref reader, options)!], IsOne: true);

        public override void Write(Utf8JsonWriter writer, OneOrMany<T> value, JsonSerializerOptions options)
        {
            if (value.IsOne)
            {
                JsonSerializer.Serialize(writer, value.Values[0], options);
                return;
            }

            JsonSerializer.Serialize(writer, value.Values, options);
        }
    }
}
