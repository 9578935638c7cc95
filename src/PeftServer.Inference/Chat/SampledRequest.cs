using PeftServer.Engine;

namespace PeftServer.Inference.Chat;

/// <summary>What every request for written text has: which model, and how its tokens are drawn.</summary>
internal abstract record SampledRequest
{
    /// <summary>A base model or a fine-tuned one.</summary>
    public required string Model { get; init; }

    public double? Temperature { get; init; }

    public double? TopP { get; init; }

    /// <summary>Not OpenAI's: only so many of the likeliest tokens are drawn from.</summary>
    public int? TopK { get; init; }

    /// <summary>Not OpenAI's: the task the text is of, from 0, for adapters of methods that know several (POLY, MULTITASK_PROMPT_TUNING).</summary>
    public int? TaskId { get; init; }

    public int? MaxTokens { get; init; }

    public int? N { get; init; }

    public OneOrMany<string>? Stop { get; init; }

    public long? Seed { get; init; }

    public bool? Stream { get; init; }

    public StreamOptions? StreamOptions { get; init; }

    public double? FrequencyPenalty { get; init; }

    public double? PresencePenalty { get; init; }

    public IReadOnlyDictionary<string, double>? LogitBias { get; init; }

    /// <summary>Taken and not used: it cannot change the answer.</summary>
    public string? User { get; init; }

    /// <summary>Tokens that the answer may have; null: what the model has room for.</summary>
    internal abstract int? MostTokens { get; }

    /// <summary>Whether log-probabilities are wanted, and of how many of the likeliest tokens beside the chosen one.</summary>
    internal abstract int? Rivals { get; }
}

internal sealed record StreamOptions
{
    public bool? IncludeUsage { get; init; }

    public bool? IncludeObfuscation { get; init; }
}
