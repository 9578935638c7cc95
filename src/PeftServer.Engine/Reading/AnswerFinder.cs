using PeftServer.Engine.Data;
using PeftServer.Engine.Tokenizers;

namespace PeftServer.Engine.Reading;

/// <summary>An answer that stands in a text, from and to which code point; empty where there is none.</summary>
public sealed record AnswerSpan(string Text, double Score, int Start, int End);

/// <summary>
/// Finds the answers to a question in a text that may be longer than a model reads, by the scores of where they begin and end, as transformers'
/// question-answering pipeline does: probabilities over each window's own tokens, of both ends together.
/// </summary>
public sealed class AnswerFinder
{
    private readonly string _context;
    private readonly IReadOnlyList<AnswerWindow> _windows;

    /// <param name="tokenizer">The model's.</param>
    /// <param name="question">What is asked.</param>
    /// <param name="context">Where the answer may stand.</param>
    /// <param name="maxLength">Tokens that the model reads.</param>
    /// <param name="stride">Tokens that neighbouring windows share.</param>
    public AnswerFinder(Tokenizer tokenizer, string question, string context, int maxLength, int stride)
    {
        _context = context;
        _windows = QuestionData.WindowsOf(new QuestionRow(question, context, []), tokenizer, SequenceFrame.OfPair(tokenizer), maxLength, stride, 0);
    }

    /// <summary>What a model must read, each with the segments of its tokens; none where the question leaves no room for the text.</summary>
    public IReadOnlyList<(int[] Ids, int[] TypeIds)> Windows => [.. _windows.Select(window => (window.Ids, window.TypeIds))];

    /// <summary>The best answers, by what a model said of <see cref="Windows"/>.</summary>
    /// <param name="readings">Two scores for every token of every window.</param>
    /// <param name="count">Answers wanted.</param>
    /// <param name="longest">Tokens that an answer may have.</param>
    /// <param name="mayBeNone">Whether "it is not here" is an answer too.</param>
    public IReadOnlyList<AnswerSpan> Best(IReadOnlyList<Reading> readings, int count, int longest, bool mayBeNone)
    {
        var answers = new List<AnswerSpan>();
        var none = 1.0;
        foreach (var (window, rows) in _windows.Zip(readings, (window, reading) => (window, reading.Rows)))
        {
            var (starts, ends) = (Probabilities(window, rows, 0), Probabilities(window, rows, 1));
            none = Math.Min(none, starts[0] * ends[0]);
            answers.AddRange(
                from start in Enumerable.Range(0, window.Offsets.Count)
                from end in Enumerable.Range(start, Math.Min(longest, window.Offsets.Count - start))
                let score = starts[1 + start] * ends[1 + end]
                orderby score descending
                select new AnswerSpan("", score, window.Offsets[start].Start, window.Offsets[end].End));
            answers = [.. answers.OrderByDescending(answer => answer.Score).DistinctBy(answer => (answer.Start, answer.End)).Take(count)];
        }

        return
        [
            .. answers.Select(answer => answer with { Text = CodePoints.Part(_context, answer.Start, answer.End) })
                .Concat(mayBeNone ? [new AnswerSpan("", none, 0, 0)] : []).OrderByDescending(answer => answer.Score).Take(count),
        ];
    }

    /// <summary>Of the first token of all, which stands for "not here", and of those of the text.</summary>
    private static double[] Probabilities(AnswerWindow window, IReadOnlyList<float[]> rows, int column)
    {
        float[] scores = [rows[0][column], .. Enumerable.Range(window.ContextStart, window.Offsets.Count).Select(token => rows[token][column])];
        return ScoreActivation.Softmax.Of(scores);
    }
}
