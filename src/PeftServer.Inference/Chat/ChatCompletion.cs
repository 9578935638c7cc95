using System.Text.Json.Serialization;
using PeftServer.Inference.Writing;

namespace PeftServer.Inference.Chat;

/// <summary>OpenAI's answer to a chat request.</summary>
internal sealed record ChatCompletion(string Id, long Created, string Model, IReadOnlyList<ChatChoice> Choices, Usage Usage)
{
    public string Object { get; } = "chat.completion";

    public string? SystemFingerprint { get; }

    public string ServiceTier { get; } = "default";
}

internal sealed record ChatChoice(int Index, ChatMessage Message, string FinishReason, ChatLogprobs? Logprobs);

internal sealed record ChatMessage(string Content)
{
    public string Role { get; } = "assistant";

    public string? Refusal { get; }
}

/// <summary>A piece of a streamed answer. <see cref="Usage"/> is in the last one only, and only where it was asked for.</summary>
internal sealed record ChatCompletionChunk(string Id, long Created, string Model, IReadOnlyList<ChunkChoice> Choices)
{
    public string Object { get; } = "chat.completion.chunk";

    public string? SystemFingerprint { get; }

    public string ServiceTier { get; } = "default";

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public Usage? Usage { get; init; }
}

internal sealed record ChunkChoice(int Index, ChunkDelta Delta, string? FinishReason, ChatLogprobs? Logprobs);

internal sealed record ChunkDelta
{
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Role { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Content { get; init; }
}

internal sealed record ChatLogprobs(IReadOnlyList<TokenLogprob> Content)
{
    public IReadOnlyList<TokenLogprob>? Refusal { get; }
}

internal sealed record TokenLogprob(string Token, float Logprob, IReadOnlyList<int> Bytes, IReadOnlyList<TokenLogprob>? TopLogprobs)
{
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public IReadOnlyList<TokenLogprob>? TopLogprobs { get; } = TopLogprobs;
}
