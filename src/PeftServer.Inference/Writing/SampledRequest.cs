using System.Text.Json;
using PeftServer.Core.Http;
using PeftServer.Engine;

namespace PeftServer.Inference.Writing;

/// <summary>What every request for written text has: which model, and how its tokens are drawn.</summary>
internal abstract record SampledRequest
{
    /// <summary>A base model or a fine-tuned one.</summary>
    public required string Model { get; init; }

    public double? Temperature { get; init; }

    public double? TopP { get; init; }

    /// <summary>Not OpenAI's: only so many of the likeliest tokens are drawn from; 0 or -1: all.</summary>
    public int? TopK { get; init; }

    /// <summary>Not OpenAI's: the task the text is of, from 0, for adapters of methods that know several (POLY, MULTITASK_PROMPT_TUNING).</summary>
    public int? TaskId { get; init; }

    /// <summary>Not OpenAI's: tokens that are less likely than this share of the likeliest are not drawn.</summary>
    public double? MinP { get; init; }

    /// <summary>Not OpenAI's: scores of tokens that are in prompt or answer already are divided by it, or multiplied where they are negative.</summary>
    public double? RepetitionPenalty { get; init; }

    /// <summary>Not OpenAI's: the answers are not drawn but searched for, as transformers does it, with <see cref="BeamWidth"/> beams.</summary>
    public bool? UseBeamSearch { get; init; }

    /// <summary>Not OpenAI's: a text's log-probability counts divided by its length to this power; 1 if left out.</summary>
    public double? LengthPenalty { get; init; }

    /// <summary>Not OpenAI's: true ends the search with the first texts that end, "never" only where none can become better; false if left out.</summary>
    public JsonElement? EarlyStopping { get; init; }

    public int? MaxTokens { get; init; }

    /// <summary>Not OpenAI's: no token may end the answer before it has so many.</summary>
    public int? MinTokens { get; init; }

    /// <summary>Not OpenAI's: the model's own end of a text does not end the answer.</summary>
    public bool? IgnoreEos { get; init; }

    /// <summary>Not OpenAI's: more tokens that end the answer.</summary>
    public IReadOnlyList<int>? StopTokenIds { get; init; }

    /// <summary>Not OpenAI's: the stop string that ended the answer belongs to it.</summary>
    public bool? IncludeStopStrInOutput { get; init; }

    /// <summary>Not OpenAI's: false shows tokens that mark structure.</summary>
    public bool? SkipSpecialTokens { get; init; }

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

    /// <summary>The same of the prompt's own tokens.</summary>
    internal virtual int? PromptRivals => null;

    /// <summary>Whether the answer goes on where the prompt ends, as one text.</summary>
    internal virtual bool ContinuesText => false;

    /// <summary>Texts that a search pursues at once.</summary>
    internal virtual int BeamWidth => N ?? 1;

    /// <summary>Answers that are written for each prompt, to give <see cref="N"/> of them.</summary>
    internal virtual int Candidates => N ?? 1;

    /// <summary>Every fault of the request, field and remedy; token ids end before <paramref name="vocabulary"/>.</summary>
    internal abstract IReadOnlyList<ErrorDetail> Faults(int vocabulary);
}

internal sealed record StreamOptions
{
    public bool? IncludeUsage { get; init; }

    public bool? IncludeObfuscation { get; init; }

    /// <summary>Not OpenAI's: every piece tells what the request has cost so far.</summary>
    public bool? ContinuousUsageStats { get; init; }
}
