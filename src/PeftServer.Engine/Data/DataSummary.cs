namespace PeftServer.Engine.Data;

/// <summary>What became of every row of a file.</summary>
public sealed record DataSummary
{
    /// <summary>How many rows are told one by one.</summary>
    public const int MaxNotes = 100;

    /// <summary>Lines that are not blank.</summary>
    public required long Rows { get; init; }

    /// <summary>Rows that are trained on, cut and split ones included.</summary>
    public required long Used { get; init; }

    /// <summary>Rows that were longer than the limit and lost an end.</summary>
    public required long Cut { get; init; }

    /// <summary>Rows that became several, because the template shows earlier messages differently later on.</summary>
    public required long Split { get; init; }

    /// <summary>Rows that are not trained on.</summary>
    public required long Skipped { get; init; }

    /// <summary>Token ids of all rows used.</summary>
    public required long Tokens { get; init; }

    /// <summary>Token ids that are targets of the loss.</summary>
    public required long TrainedTokens { get; init; }

    /// <summary>Tokens of the longest row, after cutting.</summary>
    public required int LongestRow { get; init; }

    /// <summary>How many rows were cut, split or skipped, by reason.</summary>
    public required IReadOnlyDictionary<string, long> Reasons { get; init; }

    /// <summary>The first 100 rows that were not used as they are.</summary>
    public required IReadOnlyList<RowNote> Notes { get; init; }
}

/// <summary>Why a row was not used as it is.</summary>
public sealed record RowNote(long Line, RowOutcome Outcome, string Reason);

/// <summary>What became of a row.</summary>
public enum RowOutcome
{
    Used,
    Cut,
    Split,
    Skipped,
}
