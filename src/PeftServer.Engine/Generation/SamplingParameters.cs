namespace PeftServer.Engine.Generation;

/// <summary>How the next token is chosen, in the OpenAI API's terms.</summary>
public sealed record SamplingParameters
{
    /// <summary>Tokens to generate at most; 0: the prompt is read, and that is all.</summary>
    public required int MaxTokens { get; init; }

    /// <summary>0: always the likeliest token. Otherwise scores are divided by it.</summary>
    public double Temperature { get; init; } = 1;

    /// <summary>Only the likeliest tokens that together have this probability are drawn from.</summary>
    public double TopP { get; init; } = 1;

    /// <summary>Only this many of the likeliest tokens are drawn from; 0: all.</summary>
    public int TopK { get; init; }

    /// <summary>Only tokens that have at least this share of the likeliest one's probability are drawn from.</summary>
    public double MinP { get; init; }

    /// <summary>Divides the score of a token that prompt or answer have already, or multiplies it where it is negative; 1: neither.</summary>
    public double RepetitionPenalty { get; init; } = 1;

    /// <summary>Taken from a token's score for every time it has been generated.</summary>
    public double FrequencyPenalty { get; init; }

    /// <summary>Taken from a token's score once it has been generated.</summary>
    public double PresencePenalty { get; init; }

    /// <summary>Added to scores, by token id.</summary>
    public IReadOnlyDictionary<int, double>? LogitBias { get; init; }

    /// <summary>The same seed and request give the same tokens.</summary>
    public ulong? Seed { get; init; }

    /// <summary>Whether log-probabilities are wanted, and of how many of the likeliest tokens beside the chosen one.</summary>
    public int? TopLogProbabilities { get; init; }

    /// <summary>Tokens that the answer has before one of <see cref="StopTokens"/> may end it.</summary>
    public int MinTokens { get; init; }

    /// <summary>Tokens that end the answer. They are not part of it.</summary>
    public IReadOnlySet<int> StopTokens { get; init; } = new HashSet<int>();

    /// <summary>The token that an answer must begin with and the one that must end it where it is cut off; null: any.</summary>
    public ForcedTokens? Forced { get; init; }

    /// <summary>Whether the likeliest token of the untouched scores is what is wanted.</summary>
    internal bool IsPlainGreedy =>
        Temperature == 0 && FrequencyPenalty == 0 && PresencePenalty == 0 && RepetitionPenalty == 1 && MinTokens == 0 && LogitBias is not { Count: > 0 }
        && TopLogProbabilities is null;
}
