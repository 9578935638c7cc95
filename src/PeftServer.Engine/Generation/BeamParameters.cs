namespace PeftServer.Engine.Generation;

/// <summary>How beams are searched, in transformers' terms.</summary>
public sealed record BeamParameters
{
    /// <summary>Texts that are pursued at once, and hypotheses that there are in the end.</summary>
    public required int Width { get; init; }

    /// <summary>A hypothesis' log-probability is divided by its length to this power: what is above 0 favours long ones.</summary>
    public double LengthPenalty { get; init; } = 1;

    /// <summary>When the search ends before the last token.</summary>
    public BeamStop Stop { get; init; }
}

/// <summary>When a search of beams ends, once there are as many hypotheses as beams.</summary>
public enum BeamStop
{
    /// <summary>When no beam is better than the worst of them, if it ended now. transformers' <c>early_stopping=False</c>.</summary>
    NoneIsBetter,

    /// <summary>At once. transformers' <c>early_stopping=True</c>.</summary>
    Full,

    /// <summary>When no beam can become better. transformers' <c>early_stopping="never"</c>.</summary>
    NoneCanBeBetter,
}

/// <summary>A text that a search of beams has found.</summary>
/// <param name="Tokens">Its tokens, without the one that ended it.</param>
/// <param name="Score">Its log-probability by the length penalty.</param>
/// <param name="FinishReason">Why it ended.</param>
/// <param name="TokenCount">Tokens that were written for it, the one that ended it included.</param>
public sealed record BeamHypothesis(IReadOnlyList<int> Tokens, float Score, FinishReason FinishReason, int TokenCount);
