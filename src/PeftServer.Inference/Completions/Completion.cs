using System.Text.Json.Serialization;
using PeftServer.Inference.Writing;

namespace PeftServer.Inference.Completions;

/// <summary>OpenAI's answer to a completion request, and a piece of a streamed one: there <see cref="Usage"/> is in the last one only.</summary>
internal sealed record Completion(string Id, long Created, string Model, IReadOnlyList<CompletionChoice> Choices)
{
    public string Object { get; } = "text_completion";

    public string? SystemFingerprint { get; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public Usage? Usage { get; init; }
}

internal sealed record CompletionChoice(string Text, int Index, CompletionLogprobs? Logprobs, string? FinishReason)
{
    /// <summary>vLLM's: what each token of the prompt was to the model, by token id; null for the first.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public IReadOnlyList<IReadOnlyDictionary<string, PromptLogprob>?>? PromptLogprobs { get; init; }
}

/// <summary>vLLM's word on a token in a place of the prompt.</summary>
internal sealed record PromptLogprob(float Logprob, int Rank, string DecodedToken);

/// <summary>
/// What OpenAI says of tokens here: lists that run in parallel; the token itself is among <see cref="TopLogprobs"/>, and nothing is known of the
/// first one of a prompt.
/// </summary>
internal sealed record CompletionLogprobs(
    IReadOnlyList<string> Tokens, IReadOnlyList<float?> TokenLogprobs, IReadOnlyList<IReadOnlyDictionary<string, float>?> TopLogprobs, IReadOnlyList<int> TextOffset)
{
    /// <summary>Of tokens one after another, with <paramref name="rivals"/> beside each.</summary>
    public static CompletionLogprobs Of(IReadOnlyList<ScoredToken> tokens, int rivals, TokenTexts texts) => new(
        [.. tokens.Select(token => texts[token.Id])], [.. tokens.Select(token => token.LogProbability)],
        [.. tokens.Select(token => Top(token, rivals, texts))], [.. tokens.Select(token => token.Offset)]);

    private static Dictionary<string, float>? Top(ScoredToken token, int rivals, TokenTexts texts)
    {
        if (token.LogProbability is not { } own)
        {
            return null;
        }

        var top = new Dictionary<string, float> { [texts[token.Id]] = own };
        foreach (var (id, value) in token.Rivals.Take(rivals))
        {
            var text = texts[id];
            top[text] = top.TryGetValue(text, out var known) ? Math.Max(known, value) : value; // several may look alike
        }

        return top;
    }
}
