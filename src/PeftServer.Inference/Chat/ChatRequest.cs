using System.Text.Json;
using PeftServer.Engine;

namespace PeftServer.Inference.Chat;

/// <summary>
/// The body of <c>POST /v1/chat/completions</c>: OpenAI's fields, and <c>top_k</c>. Fields that cannot change the answer are taken and
/// not used; those that could and are not computed here must hold their defaults (<see cref="ChatSettings"/>).
/// </summary>
internal sealed record ChatRequest
{
    /// <summary>A base model or a fine-tuned one.</summary>
    public required string Model { get; init; }

    public required IReadOnlyList<JsonElement> Messages { get; init; }

    public double? Temperature { get; init; }

    public double? TopP { get; init; }

    /// <summary>Not OpenAI's: only so many of the likeliest tokens are drawn from.</summary>
    public int? TopK { get; init; }

    /// <summary>Not OpenAI's: the task the chat is of, from 0, for adapters of methods that know several (POLY, MULTITASK_PROMPT_TUNING).</summary>
    public int? TaskId { get; init; }

    public int? MaxTokens { get; init; }

    public int? MaxCompletionTokens { get; init; }

    public int? N { get; init; }

    public OneOrMany<string>? Stop { get; init; }

    public long? Seed { get; init; }

    public bool? Stream { get; init; }

    public StreamOptions? StreamOptions { get; init; }

    public bool? Logprobs { get; init; }

    public int? TopLogprobs { get; init; }

    public double? FrequencyPenalty { get; init; }

    public double? PresencePenalty { get; init; }

    public IReadOnlyDictionary<string, double>? LogitBias { get; init; }

    /// <summary>Functions the template may show to the model; its calls come back as text.</summary>
    public JsonElement? Tools { get; init; }

    // Taken where they hold what is done anyway.
    public JsonElement? ToolChoice { get; init; }
    public JsonElement? ResponseFormat { get; init; }
    public JsonElement? Functions { get; init; }
    public JsonElement? FunctionCall { get; init; }
    public JsonElement? Modalities { get; init; }
    public JsonElement? Audio { get; init; }
    public JsonElement? WebSearchOptions { get; init; }

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
    public string? User { get; init; }
    public string? Verbosity { get; init; }
}

internal sealed record StreamOptions
{
    public bool? IncludeUsage { get; init; }

    public bool? IncludeObfuscation { get; init; }
}
