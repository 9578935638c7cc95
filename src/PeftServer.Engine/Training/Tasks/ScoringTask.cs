using PeftServer.Engine.Native;
using PeftServer.Engine.Training.Objectives;

namespace PeftServer.Engine.Training.Tasks;

/// <summary>Rows whose loss is a sum over targets, divided by the targets of the whole accumulation window.</summary>
internal abstract class ScoringTask<T>(IReadOnlyList<T> all) : TrainingTask
{
    public override int Rows => all.Count;

    public override int Tokens(int row) => TokensOf(all[row]);

    public override IEnumerable<long> Lines(int row) => [LineOf(all[row])];

    public override IReadOnlyList<MicroBatch> Window(IReadOnlyList<int[]> window, ulong seed)
    {
        var batches = window.Select(Chosen).ToList();
        var share = 1.0 / batches.Sum(batch => batch.Sum(TargetsOf));
        return
        [
            .. batches.Select(batch => new MicroBatch(ShapeOf(batch), dropout =>
            {
                using var scope = NewDisposeScope();
                var (sum, correct) = Score(batch, dropout);
                return Backward(new ObjectiveResult(sum, Metrics(correct)), share).MoveToOuterDisposeScope();
            })),
        ];
    }

    public override (ObjectiveResult Result, double Weight) Evaluate(int[] rows)
    {
        using var scope = NewDisposeScope();
        var batch = Chosen(rows);
        var targets = batch.Sum(TargetsOf);
        var (sum, correct) = Score(batch, dropout: null);
        return (new ObjectiveResult(sum.Times(1.0 / targets), Metrics(correct.Times(1.0 / targets))).MoveToOuterDisposeScope(), targets);
    }

    /// <summary>What goes through the model for some rows.</summary>
    protected virtual BatchShape ShapeOf(IReadOnlyList<T> rows) => new([.. rows.Select(TokensOf)], rows.Sum(TargetsOf));

    protected abstract long LineOf(T row);

    protected abstract int TokensOf(T row);

    protected abstract int TargetsOf(T row);

    /// <summary>The sum of the loss over the targets of some rows, and how many targets are right. Without dropout it is an evaluation.</summary>
    protected abstract (Tensor Sum, Tensor Correct) Score(IReadOnlyList<T> rows, Generator? dropout);

    private List<T> Chosen(int[] rows) => [.. rows.Select(row => all[row])];

    private static Dictionary<string, Tensor> Metrics(Tensor correct) => new() { ["accuracy"] = correct };
}
