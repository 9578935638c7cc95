using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;

namespace PeftServer.Core;

/// <summary>
/// The one cleaner of what a client or a child process said, so that no last words can roll back the write that ends a
/// job: PostgreSQL refuses NUL and half surrogates in text, and jsonb refuses numbers beyond its range.
/// </summary>
public static class ForeignText
{
    /// <summary>Longest text kept of one message, in UTF-16 units.</summary>
    public const int MaxLength = 8192;

    private const char Replacement = '\uFFFD';

    /// <summary>The text without NUL and lone surrogates; what is over <paramref name="maxLength"/> is cut off its end.</summary>
    public static string Clean(string? text, int maxLength = MaxLength)
    {
        var clean = Sound(text ?? "");
        return clean.Length <= maxLength ? clean : Sound(clean[..(maxLength - 1)]) + '…';
    }

    /// <summary>As <see cref="Clean(string?, int)"/>, but keeps the end: of a log, the last words matter.</summary>
    public static string CleanTail(string? text, int maxLength = MaxLength)
    {
        var clean = Sound(text ?? "");
        return clean.Length <= maxLength ? clean : '…' + Sound(clean[^(maxLength - 1)..]);
    }

    /// <summary>Bytes that ought to be UTF-8, cleaned; what is not becomes U+FFFD.</summary>
    public static string CleanTail(ReadOnlySpan<byte> utf8, int maxLength = MaxLength) =>
        CleanTail(Encoding.UTF8.GetString(utf8), maxLength);

    /// <summary>The value as jsonb can hold it: text cleaned, numbers in the range of doubles, the others left out.</summary>
    public static JsonElement Clean(JsonElement value) =>
        JsonSerializer.SerializeToElement(CleanNode(value), Engine.PeftJson.Options);

    private static JsonNode? CleanNode(JsonElement value) => value.ValueKind switch
    {
        JsonValueKind.Object => CleanObject(value),
        JsonValueKind.Array => new JsonArray([.. value.EnumerateArray().Where(IsStorable).Select(CleanNode)]),
        JsonValueKind.String => JsonValue.Create(Clean(Read(value.GetString))),
        JsonValueKind.Number => value.TryGetInt64(out var whole) ? JsonValue.Create(whole) : JsonValue.Create(value.GetDouble()),
        JsonValueKind.True => JsonValue.Create(true),
        JsonValueKind.False => JsonValue.Create(false),
        JsonValueKind.Undefined or JsonValueKind.Null => null,
        _ => throw new ArgumentOutOfRangeException(nameof(value), value.ValueKind, "Not a JSON value."),
    };

    private static JsonObject CleanObject(JsonElement value)
    {
        var clean = new JsonObject();
        foreach (var member in value.EnumerateObject().Where(member => IsStorable(member.Value)))
        {
            clean[Clean(Read(() => member.Name), 256)] = CleanNode(member.Value);
        }

        return clean;
    }

    // JSON may escape half a surrogate, which the reader refuses to make text of.
    private static string? Read(Func<string?> text)
    {
        try
        {
            return text();
        }
        catch (InvalidOperationException)
        {
            return Replacement.ToString();
        }
    }

    private static bool IsStorable(JsonElement value) =>
        value.ValueKind is not JsonValueKind.Number || double.IsFinite(value.GetDouble());

    private static string Sound(string text)
    {
        if (IsSound(text))
        {
            return text;
        }

        var clean = new StringBuilder(text.Length);
        foreach (var rune in text.EnumerateRunes()) // half surrogates come out as U+FFFD
        {
            if (rune.Value == 0)
            {
                clean.Append(Replacement);
                continue;
            }

            clean.Append(rune);
        }

        return clean.ToString();
    }

    private static bool IsSound(string text) => !text.AsSpan().ContainsAny('\0', Replacement) && !text.Any(char.IsSurrogate);
}
