using System.Text.Json.Serialization;
using PeftServer.Inference.Chat;

namespace PeftServer.Inference.Completions;

/// <summary>OpenAI's answer to a completion request, and a piece of a streamed one: there <see cref="Usage"/> is in the last one only.</summary>
internal sealed record Completion(string Id, long Created, string Model, IReadOnlyList<CompletionChoice> Choices)
{
    public string Object { get; } = "text_completion";

    public string? SystemFingerprint { get; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public Usage? Usage { get; init; }
}

internal sealed record CompletionChoice(string Text, int Index, CompletionLogprobs? Logprobs, string? FinishReason);

/// <summary>What OpenAI says of tokens here: lists that run in parallel; the chosen token is among <see cref="TopLogprobs"/>.</summary>
internal sealed record CompletionLogprobs(
    IReadOnlyList<string> Tokens, IReadOnlyList<float> TokenLogprobs, IReadOnlyList<IReadOnlyDictionary<string, float>> TopLogprobs, IReadOnlyList<int> TextOffset)
{
    /// <summary>Of tokens one after another; <paramref name="offset"/> is where the first begins in the answer's text.</summary>
    public static CompletionLogprobs? Of(IReadOnlyList<TokenLogprob> tokens, int offset = 0)
    {
        if (tokens.Count == 0)
        {
            return null;
        }

        var offsets = new List<int>();
        foreach (var token in tokens)
        {
            offsets.Add(offset);
            offset += token.Token.Length;
        }

        return new CompletionLogprobs([.. tokens.Select(token => token.Token)], [.. tokens.Select(token => token.Logprob)], [.. tokens.Select(Rivals)], offsets);
    }

    private static Dictionary<string, float> Rivals(TokenLogprob token)
    {
        var rivals = new Dictionary<string, float> { [token.Token] = token.Logprob };
        foreach (var rival in token.TopLogprobs ?? [])
        {
            rivals.TryAdd(rival.Token, rival.Logprob); // several may look alike
        }

        return rivals;
    }
}
