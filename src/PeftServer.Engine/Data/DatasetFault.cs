namespace PeftServer.Engine.Data;

/// <summary>Something in a dataset file that must be corrected.</summary>
/// <param name="Line">Line of the file, from 1.</param>
/// <param name="Path">JSON path in the line: <c>messages[1].content</c>; empty for the line itself.</param>
/// <param name="Rule">Stable name of the rule: <c>invalid_json</c>, <c>unknown_role</c> …</param>
/// <param name="Message">What is wrong, for people.</param>
/// <param name="Fix">What to do about it.</param>
public sealed record DatasetFault(long Line, string Path, string Rule, string Message, string Fix);

/// <summary>What the rows of a file are.</summary>
public enum DatasetFormat
{
    /// <summary>OpenAI's chats: <c>messages</c>, and <c>tools</c>.</summary>
    Messages,

    /// <summary><c>prompt</c> and <c>completion</c>, texts or lists of messages.</summary>
    PromptCompletion,

    /// <summary><c>text</c>, every token of which is learnt.</summary>
    Text,

    /// <summary><c>prompt</c>, <c>chosen</c> and <c>rejected</c>; or the last two alone, which begin alike.</summary>
    Preference,

    /// <summary><c>prompt</c>, <c>completion</c> and <c>label</c>: true for a good answer.</summary>
    Judged,
}

/// <summary>What <see cref="DatasetFile.Check(Stream, CancellationToken)"/> found in a file.</summary>
public sealed record DatasetCheck
{
    /// <summary>Lines that are not blank.</summary>
    public required long Rows { get; init; }

    /// <summary>The format of the first good row; absent where there is none.</summary>
    public DatasetFormat? Format { get; init; }

    /// <summary>All faults, also those beyond <see cref="Faults"/>.</summary>
    public required long FaultCount { get; init; }

    /// <summary>The first 100 faults.</summary>
    public required IReadOnlyList<DatasetFault> Faults { get; init; }

    public bool IsValid => FaultCount == 0;
}
