using System.Text.Json.Serialization;

namespace PeftServer.Engine.Data;

/// <summary>Something in a dataset file that must be corrected.</summary>
/// <param name="Line">Line of the file, from 1.</param>
/// <param name="Path">JSON path in the line: <c>messages[1].content</c>; empty for the line itself.</param>
/// <param name="Rule">Stable name of the rule: <c>invalid_json</c>, <c>unknown_role</c> …</param>
/// <param name="Message">What is wrong, for people.</param>
/// <param name="Fix">What to do about it.</param>
public sealed record DatasetFault(long Line, string Path, string Rule, string Message, string Fix)
{
    /// <summary>All of it but the line, in a sentence or two.</summary>
    public string Text => $"{(Path.Length > 0 ? $"{Path}: " : "")}{Message} {Fix} ({Rule})";
}

/// <summary>What the rows of a file are.</summary>
public enum DatasetFormat
{
    /// <summary>OpenAI's chats: <c>messages</c>, and <c>tools</c>.</summary>
    Messages,

    /// <summary>ShareGPT's chats: <c>conversations</c> of <c>from</c> and <c>value</c>.</summary>
    [JsonStringEnumMemberName("sharegpt")]
    ShareGpt,

    /// <summary><c>prompt</c> and <c>completion</c>, texts or lists of messages.</summary>
    PromptCompletion,

    /// <summary><c>instruction</c>, <c>input</c> and <c>output</c>.</summary>
    Alpaca,

    /// <summary><c>text</c>, every token of which is learnt.</summary>
    Text,

    /// <summary><c>prompt</c>, <c>chosen</c> and <c>rejected</c>; or the last two alone, which begin alike. <c>margin</c> for reward modelling.</summary>
    Preference,

    /// <summary>OpenAI's preferences: <c>input</c>, <c>preferred_output</c>, <c>non_preferred_output</c>.</summary>
    [JsonStringEnumMemberName("openai_preference")]
    OpenAIPreference,

    /// <summary><c>prompt</c>, <c>completion</c> and <c>label</c>: true for a good answer.</summary>
    Judged,

    /// <summary><c>messages</c> or <c>prompt</c> that wait for an answer, and fields that graders look at.</summary>
    Prompts,

    /// <summary><c>text</c> and <c>label</c>; <c>text_pair</c> where two texts are one input.</summary>
    Classification,

    /// <summary><c>tokens</c> (words) and <c>ner_tags</c>, <c>tags</c> or <c>labels</c>, one each.</summary>
    TokenClassification,

    /// <summary>SQuAD's <c>question</c>, <c>context</c> and <c>answers</c>.</summary>
    Squad,

    /// <summary><c>source</c> and <c>target</c>.</summary>
    [JsonStringEnumMemberName("seq2seq")]
    Seq2Seq,

    /// <summary><c>anchor</c>, <c>positive</c> and any <c>negative</c>; or <c>sentence1</c>, <c>sentence2</c> and <c>score</c>.</summary>
    Embedding,
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
