using System.Text.Json;
using PeftServer.Core.Http;
using PeftServer.Inference.Writing;

namespace PeftServer.Inference.Chat;

/// <summary>
/// The body of <c>POST /v1/chat/completions</c>: OpenAI's fields, and <c>top_k</c>. Fields that cannot change the answer are taken and
/// not used; those that could and are not computed here must hold their defaults (<see cref="ChatSettings"/>).
/// </summary>
internal sealed record ChatRequest : SampledRequest
{
    public required IReadOnlyList<JsonElement> Messages { get; init; }

    public int? MaxCompletionTokens { get; init; }

    public bool? Logprobs { get; init; }

    public int? TopLogprobs { get; init; }

    internal override int? MostTokens => MaxCompletionTokens ?? MaxTokens;

    internal override int? Rivals => Logprobs is true ? TopLogprobs ?? 0 : null;

    internal override IReadOnlyList<ErrorDetail> Faults(int vocabulary) => ChatSettings.Faults(this, vocabulary);

    /// <summary>Functions the template may show to the model; its calls come back as text.</summary>
    public JsonElement? Tools { get; init; }

    /// <summary>Not OpenAI's: more that the template may ask for, such as <c>enable_thinking</c>.</summary>
    public IReadOnlyDictionary<string, JsonElement>? ChatTemplateKwargs { get; init; }

    /// <summary>Not OpenAI's: whether the template shall open an answer behind the chat; yes if left out.</summary>
    public bool? AddGenerationPrompt { get; init; }

    // Taken where they hold what is done anyway.
    public JsonElement? ToolChoice { get; init; }
    public JsonElement? ResponseFormat { get; init; }
    public JsonElement? Functions { get; init; }
    public JsonElement? FunctionCall { get; init; }
    public JsonElement? Modalities { get; init; }
    public JsonElement? Audio { get; init; }
    public JsonElement? WebSearchOptions { get; init; }
    public bool? ContinueFinalMessage { get; init; }

    // Taken and not used: they cannot change the answer.
    public bool? ParallelToolCalls { get; init; }
    public JsonElement? Metadata { get; init; }
    public JsonElement? Moderation { get; init; }
    public JsonElement? Prediction { get; init; }
    public string? PromptCacheKey { get; init; }
    public string? PromptCacheRetention { get; init; }
    public string? ReasoningEffort { get; init; }
    public string? SafetyIdentifier { get; init; }
    public string? ServiceTier { get; init; }
    public bool? Store { get; init; }
    public string? Verbosity { get; init; }
}
