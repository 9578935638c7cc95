using PeftServer.Engine.Adapters;
using PeftServer.Engine.Data;
using PeftServer.Engine.Evaluation;
using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Reading;
using PeftServer.Engine.Training.Objectives;

namespace PeftServer.Engine.Training.Tasks;

/// <summary>
/// Questions and where a text answers them. A window's loss is the mean of two cross-entropies over its own tokens, of where the answer begins and ends; the first
/// token stands for "not here". (transformers' softmax also covers padding, which is not there.)
/// </summary>
internal sealed class QuestionTask(QuestionData data, ClassificationModel model, Adapter adapter, QuestionAnsweringSettings settings) : ScoringTask<AnswerWindow>(data.Windows)
{
    private readonly Dictionary<int, (double Score, string Text, double Null)> _best = [];

    protected override long LineOf(AnswerWindow row) => data.Questions[row.QuestionIndex].Line;

    protected override int TokensOf(AnswerWindow row) => row.Ids.Length;

    protected override int TargetsOf(AnswerWindow row) => 1;

    protected override (Tensor Sum, Tensor Correct) Score(IReadOnlyList<AnswerWindow> rows, Generator? dropout)
    {
        using var batch = ForwardBatch.Packed([.. rows.Select(row => row.Ids)], [adapter], model.Device, dropout, tokenTypes: [.. rows.Select(row => row.TypeIds)]);
        var scores = model.Predict(batch).to(ScalarType.Float32); // [n, 2]
        var (sum, correct) = (zeros([], device: model.Device), zeros([], device: model.Device));
        for (var i = 0; i < rows.Count; i++)
        {
            var own = scores.narrow(0, batch.Starts[i] + batch.PromptRows[i], rows[i].Ids.Length).t(); // [2, tokens]
            var (loss, right) = CrossEntropy.Of(own, tensor([(long)rows[i].Start, rows[i].End], device: model.Device));
            (sum, correct) = (sum.Plus(loss.Times(0.5)), correct.Plus(right.Times(0.5)));
            if (dropout is null)
            {
                Keep(rows[i], own.cpu().contiguous().data<float>().ToArray());
            }
        }

        return (sum, correct);
    }

    public override IReadOnlyDictionary<string, double> EvaluationScores()
    {
        var scores = _best.Select(entry => Judge(data.Questions[entry.Key], entry.Value.Null > entry.Value.Score + settings.NullScoreDiffThreshold ? "" : entry.Value.Text)).ToList();
        _best.Clear();
        return new Dictionary<string, double>
        {
            ["exact_match"] = scores.Count == 0 ? 0 : 100 * scores.Average(each => each.Exact),
            ["f1"] = scores.Count == 0 ? 0 : 100 * scores.Average(each => each.F1),
        };
    }

    private static (double Exact, double F1) Judge(Question question, string answer)
    {
        var truths = question.Answers.DefaultIfEmpty("").ToList();
        return (truths.Max(truth => SquadScore.Exact(truth, answer)), truths.Max(truth => SquadScore.F1(truth, answer)));
    }

    /// <summary>Keeps the best answer of a question over its windows.</summary>
    private void Keep(AnswerWindow window, float[] scores)
    {
        var tokens = window.Ids.Length;
        var none = scores[0] + scores[tokens];
        var (best, from, to) = (double.NegativeInfinity, 0, 0);
        for (var start = 0; start < window.Offsets.Count; start++)
        {
            for (var end = start; end < Math.Min(window.Offsets.Count, start + settings.MaxAnswerLength); end++)
            {
                var score = (double)scores[window.ContextStart + start] + scores[tokens + window.ContextStart + end];
                if (score > best)
                {
                    (best, from, to) = (score, start, end);
                }
            }
        }

        var (known, text, least) = _best.GetValueOrDefault(window.QuestionIndex, (double.NegativeInfinity, "", double.PositiveInfinity));
        if (best > known)
        {
            (known, text) = (best, CodePoints.Part(data.Questions[window.QuestionIndex].Context, window.Offsets[from].Start, window.Offsets[to].End));
        }

        _best[window.QuestionIndex] = (known, text, Math.Min(least, none));
    }
}
