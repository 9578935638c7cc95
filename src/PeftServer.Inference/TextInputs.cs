using System.Text.Json;
using PeftServer.Core.Http;
using PeftServer.Engine.Tokenizers;

namespace PeftServer.Inference;

/// <summary>A text of a request as tokens.</summary>
/// <param name="Ids">Token ids.</param>
/// <param name="TypeIds">Segment of each; null where the request gave tokens.</param>
/// <param name="Encoding">All that the tokenizer knows of them, likewise.</param>
/// <param name="Text">What was sent, likewise.</param>
internal sealed record TextInput(int[] Ids, int[]? TypeIds = null, TokenEncoding? Encoding = null, string? Text = null);

/// <summary>
/// Reads the texts of a request in every form that OpenAI's API has: one text, a list, the tokens of one, a list of those; and where
/// <see cref="TakesPairs"/> transformers' <c>{"text", "text_pair"}</c> in place of a text.
/// </summary>
/// <param name="field">The field they are in.</param>
/// <param name="tokenizer">The model's.</param>
/// <param name="vocabulary">Tokens that the model knows.</param>
/// <param name="most">Tokens that a text may have.</param>
internal sealed class TextInputs(string field, Tokenizer tokenizer, int vocabulary, int most)
{
    /// <summary>Texts of one request.</summary>
    private const int MaxTexts = 2048;

    public bool TakesPairs { get; init; }

    /// <summary>Whether texts get the special tokens that the model knows around a text.</summary>
    public bool AddsSpecialTokens { get; init; } = true;

    /// <summary>A longer text loses its end; −1: what the model cannot take of it; null: it is an error.</summary>
    public int? TruncateTo { get; init; }

    /// <summary>What to do about a text that is too long.</summary>
    public string Remedy { get; init; } = "Shorten it.";

    /// <summary>Throws <see cref="ApiErrorException"/> naming field and place.</summary>
    public IReadOnlyList<TextInput> Read(JsonElement value)
    {
        var texts = value.ValueKind is not JsonValueKind.Array ? [One(value, field)]
            : AreTokens(value) ? [Tokens(value, field)]
            : value.EnumerateArray().Select((item, i) => item.ValueKind is JsonValueKind.Array ? Tokens(item, $"{field}[{i}]") : One(item, $"{field}[{i}]")).ToList();
        return texts.Count is > 0 and <= MaxTexts
            ? texts
            : throw Fault(field, $"'{field}' has {texts.Count} texts; it takes 1 to {MaxTexts}.", "invalid_value");
    }

    /// <summary>A text, or a pair.</summary>
    public TextInput Encode(string text, string? pair, string path)
    {
        var room = TruncateTo is null ? (int?)null : TruncateTo is -1 ? most : Math.Min(TruncateTo.Value, most);
        var encoding = tokenizer.EncodeWithOffsets(text, pair, AddsSpecialTokens, room is { } limit ? new TruncationOptions { MaxLength = limit } : null);
        return Checked(new TextInput([.. encoding.Ids], [.. encoding.TypeIds], encoding, text), path);
    }

    private TextInput One(JsonElement value, string path) => value.ValueKind switch
    {
        JsonValueKind.String => Encode(value.GetString()!, null, path),
        JsonValueKind.Object when TakesPairs => Pair(value, path),
        _ => throw Fault(path, $"'{path}' must be a text{(TakesPairs ? ", an object of text and text_pair," : "")} or a list of token ids.", "invalid_type"),
    };

    private TextInput Pair(JsonElement value, string path)
    {
        var texts = new Dictionary<string, string>();
        foreach (var member in value.EnumerateObject())
        {
            texts[member.Name] = member.Name is "text" or "text_pair" && member.Value.ValueKind is JsonValueKind.String
                ? member.Value.GetString()!
                : throw Fault(path, $"'{path}' takes text and text_pair, both of them texts.", "invalid_type");
        }

        return texts.TryGetValue("text", out var text)
            ? Encode(text, texts.GetValueOrDefault("text_pair"), path)
            : throw Fault(path, $"'{path}.text' is missing.", "missing_required_parameter");
    }

    private static bool AreTokens(JsonElement list) => list.GetArrayLength() > 0 && list.EnumerateArray().All(item => item.ValueKind is JsonValueKind.Number);

    private TextInput Tokens(JsonElement list, string path)
    {
        var ids = list.EnumerateArray().Select(item => item.ValueKind is JsonValueKind.Number && item.TryGetInt32(out var id) && id >= 0 && id < vocabulary
            ? id
            : throw Fault(path, $"'{path}' must hold token ids from 0 to {vocabulary - 1}.", "invalid_value")).ToArray();
        return Checked(new TextInput(TruncateTo is null ? ids : ids[..Math.Min(ids.Length, TruncateTo is -1 ? most : Math.Min(TruncateTo.Value, most))]), path);
    }

    private TextInput Checked(TextInput text, string path) =>
        text.Ids.Length == 0 ? throw Fault(path, $"'{path}' is empty. Send at least one token.", "invalid_value")
        : text.Ids.Length > most ? throw Fault(path, $"This model takes {most} tokens, but '{path}' has {text.Ids.Length}. {Remedy}", "context_length_exceeded")
        : text;

    private static ApiErrorException Fault(string path, string message, string code) => new(ApiError.BadRequest(message, path, code));
}
