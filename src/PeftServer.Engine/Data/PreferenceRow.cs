using PeftServer.Engine.Tokenizers.ChatTemplates;

namespace PeftServer.Engine.Data;

/// <summary>A prompt with a better and a worse answer, as tokens; whole, whatever the limit.</summary>
/// <param name="PromptIds">What both answers follow: up to where one of them first differs from the prompt as it is fed.</param>
/// <param name="ChosenIds">The better answer.</param>
/// <param name="RejectedIds">The worse answer.</param>
/// <param name="Line">Line of the file, from 1.</param>
/// <param name="Margin">By how much the better answer shall win, in reward modelling; absent: 0.</param>
public sealed record PreferenceRow(int[] PromptIds, int[] ChosenIds, int[] RejectedIds, long Line, double? Margin = null)
{
    /// <summary>Prompt and better answer within a limit, the answer marked.</summary>
    public TokenizedChat Chosen(int maxLength, TruncationMode mode = TruncationMode.KeepStart) => Answers.Join(PromptIds, ChosenIds, maxLength, mode);

    /// <summary>Prompt and worse answer within a limit, the answer marked.</summary>
    public TokenizedChat Rejected(int maxLength, TruncationMode mode = TruncationMode.KeepStart) => Answers.Join(PromptIds, RejectedIds, maxLength, mode);

    /// <summary>Pairs as judged answers: all better ones, then all worse ones.</summary>
    public static IReadOnlyList<JudgedRow> ToJudged(IReadOnlyList<PreferenceRow> pairs) =>
    [
        .. pairs.Select(p => new JudgedRow(p.PromptIds, p.ChosenIds, Label: true, p.Line)),
        .. pairs.Select(p => new JudgedRow(p.PromptIds, p.RejectedIds, Label: false, p.Line)),
    ];
}

/// <summary>A prompt with an answer that is good or bad, as tokens; whole, whatever the limit.</summary>
/// <param name="PromptIds">What the answer follows.</param>
/// <param name="CompletionIds">The answer.</param>
/// <param name="Label">It is good.</param>
/// <param name="Line">Line of the file, from 1.</param>
public sealed record JudgedRow(int[] PromptIds, int[] CompletionIds, bool Label, long Line)
{
    /// <summary>Prompt and answer within a limit, the answer marked.</summary>
    public TokenizedChat Completion(int maxLength, TruncationMode mode = TruncationMode.KeepStart) => Answers.Join(PromptIds, CompletionIds, maxLength, mode);

    /// <summary>
    /// For each row of a batch an answer to another prompt: that of the row before, the last for the first. KTO measures the
    /// policy's drift on them (Ethayarajh et al. 2024, https://arxiv.org/abs/2402.01306). A row alone keeps its own.
    /// </summary>
    public static IReadOnlyList<int[]> Mismatched(IReadOnlyList<JudgedRow> rows, int batchSize) =>
        [.. rows.Chunk(batchSize).SelectMany(batch => batch.Select((_, i) => batch[(i + batch.Length - 1) % batch.Length].CompletionIds))];
}

/// <summary>Puts prompts and answers together.</summary>
internal static class Answers
{
    public static TokenizedChat Join(int[] prompt, int[] answer, int maxLength, TruncationMode mode)
    {
        int[] ids = [.. prompt, .. answer];
        bool[] trained = [.. new bool[prompt.Length], .. Enumerable.Repeat(true, answer.Length)];
        var kept = ids.Length <= maxLength ? .. : mode is TruncationMode.KeepStart ? ..maxLength : ^maxLength..;
        return new TokenizedChat(ids[kept], trained[kept]);
    }
}
