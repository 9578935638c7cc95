using PeftServer.Engine.Tokenizers;

namespace PeftServer.Engine.Data;

/// <summary>A question, a text, and the answers that stand in it.</summary>
public sealed record Question(string Text, string Context, IReadOnlyList<string> Answers, long Line);

/// <summary>A question with a window of its text, as tokens.</summary>
/// <param name="Ids">Token ids, special ones included.</param>
/// <param name="TypeIds">0 for the question, 1 for the text.</param>
/// <param name="Start">First token of the answer; 0, the first token of all, where the window does not have it.</param>
/// <param name="End">Last token of the answer.</param>
/// <param name="ContextStart">Where the text begins among the tokens.</param>
/// <param name="Offsets">Start and end of each of its tokens in the text, in code points.</param>
/// <param name="QuestionIndex">Which question of the file it is of.</param>
public sealed record AnswerWindow(
    int[] Ids, int[] TypeIds, int Start, int End, int ContextStart, IReadOnlyList<(int Start, int End)> Offsets, int QuestionIndex);

/// <summary>A file of questions in SQuAD's form as tokens, with an account of every row.</summary>
public sealed record QuestionData(IReadOnlyList<Question> Questions, IReadOnlyList<AnswerWindow> Windows, DataSummary Summary)
{
    /// <summary>Reads a file for one model. A text that is too long becomes several windows that overlap by <paramref name="stride"/> tokens.</summary>
    public static QuestionData Read(Stream stream, Tokenizer tokenizer, TrainingDataOptions options, int stride, CancellationToken cancellationToken = default)
    {
        var (questions, windows, account, frame) = (new List<Question>(), new List<AnswerWindow>(), new RowAccount(), SequenceFrame.OfPair(tokenizer));
        RowFeed.Read(stream, options.Format ?? DatasetFormat.Squad, account, (line, row) =>
        {
            var asked = (QuestionRow)row;
            var own = WindowsOf(asked, tokenizer, frame, options.MaxLength, stride, questions.Count);
            if (own.Count == 0)
            {
                account.Skip(line, $"The question alone has {tokenizer.Encode(asked.Question, addSpecialTokens: false).Length} tokens; beside it no window of the text fits into {options.MaxLength}.");
                return;
            }

            windows.AddRange(own);
            questions.Add(new Question(asked.Question, asked.Context, [.. asked.Answers.Select(answer => answer.Text)], line));
            account.Use(isLong: false, line, options.MaxLength);
            if (own.Count > 1)
            {
                account.Split(line, $"The text is longer than a window of {options.MaxLength} tokens and was split into several.");
            }
        }, cancellationToken);
        return new QuestionData(questions, windows, account.Summary(windows.Select(window => (window.Ids.Length, 1))));
    }

    /// <summary>A question with every window of its text; none where the question leaves no room for one.</summary>
    internal static IReadOnlyList<AnswerWindow> WindowsOf(QuestionRow asked, Tokenizer tokenizer, SequenceFrame frame, int maxLength, int stride, int index)
    {
        var question = tokenizer.Encode(asked.Question, addSpecialTokens: false);
        var context = tokenizer.EncodeWithOffsets(asked.Context, addSpecialTokens: false);
        var room = maxLength - frame.Before.Length - frame.Between.Length - frame.After.Length - question.Length;
        var windows = new List<AnswerWindow>();
        for (var from = 0; room > stride && (from == 0 || from + stride < context.Count); from += room - stride)
        {
            windows.Add(Window(asked, question, context, from, Math.Min(room, context.Count - from), frame, index));
            if (from + room >= context.Count)
            {
                break;
            }
        }

        return windows;
    }

    private static AnswerWindow Window(QuestionRow asked, int[] question, TokenEncoding context, int from, int count, SequenceFrame frame, int index)
    {
        int[] first = [.. frame.Before, .. question, .. frame.Between];
        int[] second = [.. context.Ids.Skip(from).Take(count), .. frame.After];
        var offsets = context.Offsets.Skip(from).Take(count).ToList();
        var (start, end) = (0, 0);
        if (asked.Answers is [var answer, ..])
        {
            var length = answer.Text.EnumerateRunes().Count();
            var begins = offsets.FindIndex(token => token.Start <= answer.Start && token.End > answer.Start);
            var ends = offsets.FindLastIndex(token => token.Start < answer.Start + length && token.End >= answer.Start + length);
            if (begins >= 0 && ends >= begins)
            {
                (start, end) = (first.Length + begins, first.Length + ends);
            }
        }

        return new AnswerWindow([.. first, .. second], [.. first.Select(_ => 0), .. second.Select(_ => frame.SecondType)], start, end, first.Length, offsets, index);
    }
}
