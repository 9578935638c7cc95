using System.Text.Json;
using PeftServer.Engine.Tokenizers.Patterns;

namespace PeftServer.Engine.Tokenizers;

/// <summary>Reads fields of tokenizer.json and says which one is wrong.</summary>
internal static class JsonParts
{
    public static JsonElement? Part(JsonElement root, string name) =>
        root.ValueKind is JsonValueKind.Object && root.TryGetProperty(name, out var part) && part.ValueKind is not JsonValueKind.Null ? part : null;

    public static string Type(JsonElement part, string where) =>
        OptionalString(part, "type") ?? throw new TokenizerException($"tokenizer.json: {where} has no type.");

    public static TokenizerException Unknown(string where, string type) =>
        new($"tokenizer.json: {where} is of type \"{type}\", which tokenizers 0.23 does not have.");

    public static JsonElement.ArrayEnumerator List(JsonElement part, string name) =>
        part.ValueKind is JsonValueKind.Object && part.TryGetProperty(name, out var list) && list.ValueKind is JsonValueKind.Array
            ? list.EnumerateArray()
            : throw new TokenizerException($"tokenizer.json: {name} is missing or is not a list.");

    public static JsonElement Object(JsonElement part, string name) =>
        part.ValueKind is JsonValueKind.Object && part.TryGetProperty(name, out var value) && value.ValueKind is JsonValueKind.Object
            ? value
            : throw new TokenizerException($"tokenizer.json: {name} is missing or is not an object.");

    public static bool Bool(JsonElement part, string name, bool orElse = false) => OptionalBool(part, name) ?? orElse;

    public static bool? OptionalBool(JsonElement part, string name)
    {
        if (part.ValueKind is not JsonValueKind.Object || !part.TryGetProperty(name, out var value) || value.ValueKind is JsonValueKind.Null)
        {
            return null;
        }

        return value.ValueKind is JsonValueKind.True or JsonValueKind.False
            ? value.GetBoolean()
            : throw new TokenizerException($"tokenizer.json: {name} is {value.GetRawText()}, not true or false.");
    }

    public static int Int(JsonElement part, string name) => OptionalInt(part, name)
        ?? throw new TokenizerException($"tokenizer.json: {name} is missing or is not a number from 0 up.");

    public static int? OptionalInt(JsonElement part, string name)
    {
        if (part.ValueKind is not JsonValueKind.Object || !part.TryGetProperty(name, out var value) || value.ValueKind is JsonValueKind.Null)
        {
            return null;
        }

        return value.ValueKind is JsonValueKind.Number && value.TryGetInt32(out var number) && number >= 0
            ? number
            : throw new TokenizerException($"tokenizer.json: {name} is {value.GetRawText()}, not a number from 0 up.");
    }

    public static string String(JsonElement part, string name) => OptionalString(part, name)
        ?? throw new TokenizerException($"tokenizer.json: {name} is missing or is not a string.");

    public static string? OptionalString(JsonElement part, string name) =>
        part.ValueKind is JsonValueKind.Object && part.TryGetProperty(name, out var value) && value.ValueKind is JsonValueKind.String ? Text(value) : null;

    /// <summary>A string of JSON; half a surrogate pair is no text and an error.</summary>
    public static string Text(JsonElement value)
    {
        try
        {
            return value.GetString()!;
        }
        catch (InvalidOperationException e)
        {
            throw new TokenizerException($"tokenizer.json: {value.GetRawText()} is not valid text.", e);
        }
    }

    /// <summary>The one character of a field.</summary>
    public static char Character(JsonElement part, string name, char? orElse = null)
    {
        var text = OptionalString(part, name);
        return text is { Length: 1 } ? text[0]
            : text is null && orElse is { } given ? given
            : throw new TokenizerException($"tokenizer.json: {name} must be one character.");
    }

    /// <summary>A token with its id, as <c>["[SEP]", 102]</c>.</summary>
    public static (int Id, string Token) TokenPair(JsonElement part, string name) =>
        List(part, name).ToList() is [{ ValueKind: JsonValueKind.String } token, { ValueKind: JsonValueKind.Number } id] && id.TryGetInt32(out var number)
            ? (number, Text(token))
            : throw new TokenizerException($"tokenizer.json: {name} must be a token and its id.");

    public static TextPattern Pattern(JsonElement part)
    {
        var pattern = Object(part, "pattern");
        return OptionalString(pattern, "String") is { } text ? TextPattern.Literal(text)
            : OptionalString(pattern, "Regex") is { } regex ? TextPattern.Regex(regex)
            : throw new TokenizerException("tokenizer.json: pattern must be {\"String\": …} or {\"Regex\": …}.");
    }
}
