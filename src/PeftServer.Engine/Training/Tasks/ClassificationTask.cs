using PeftServer.Engine.Adapters;
using PeftServer.Engine.Data;
using PeftServer.Engine.Evaluation;
using PeftServer.Engine.Models;
using PeftServer.Engine.Training.Objectives;

namespace PeftServer.Engine.Training.Tasks;

/// <summary>Texts and their classes.</summary>
internal sealed class ClassificationTask(
    IReadOnlyList<LabelledSequence> texts, ClassificationModel model, Adapter adapter, ClassificationSettings settings) : ScoringTask<LabelledSequence>(texts)
{
    private readonly List<(int Truth, int Guess)> _guesses = [];

    protected override long LineOf(LabelledSequence row) => row.Line;

    protected override int TokensOf(LabelledSequence row) => row.Ids.Length;

    protected override int TargetsOf(LabelledSequence row) => 1;

    protected override (Tensor Sum, Tensor Correct) Score(IReadOnlyList<LabelledSequence> rows, Generator? dropout)
    {
        using var batch = ForwardBatch.Packed([.. rows.Select(row => row.Ids)], [adapter], model.Device, dropout, tokenTypes: [.. rows.Select(row => row.TypeIds)]);
        var scores = model.Predict(batch); // [rows, classes]
        var result = CrossEntropy.Of(scores, tensor(rows.Select(row => (long)row.Label).ToArray(), device: model.Device), settings.LabelSmoothingFactor);
        if (dropout is null)
        {
            _guesses.AddRange(rows.Select(row => row.Label).Zip(scores.argmax(-1).cpu().data<long>().ToArray(), (truth, guess) => (truth, (int)guess)));
        }

        return result;
    }

    public override IReadOnlyDictionary<string, double> EvaluationScores()
    {
        var report = new ClassificationReport([.. _guesses.Select(each => each.Truth)], [.. _guesses.Select(each => each.Guess)], model.Config.LabelCount);
        _guesses.Clear();
        return new Dictionary<string, double>
        {
            ["f1"] = report.Macro.F1,
            ["precision"] = report.Macro.Precision,
            ["recall"] = report.Macro.Recall,
            ["matthews_correlation"] = report.Matthews,
        };
    }
}
