using PeftServer.Engine.Adapters;
using PeftServer.Engine.Data;
using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Training.Objectives;

namespace PeftServer.Engine.Training.Tasks;

/// <summary>
/// Supervised fine-tuning. A row is one document, or several that are packed: they share a place in the batch, each with positions of its own and
/// without a view of the others, so packing changes how many documents share a step and nothing else.
/// </summary>
internal sealed class SupervisedTask(
    IReadOnlyList<TrainingRow[]> rows, ITrainingStep step, CausalLanguageModel model, Adapter adapter, SftSettings settings) : TrainingTask
{
    public override int Rows => rows.Count;

    public override int Tokens(int row) => rows[row].Sum(document => document.InputIds.Length);

    public override bool UsesAutograd => step is AutogradStep;

    public override IEnumerable<long> Lines(int row) => rows[row].Select(document => document.Line);

    /// <summary>The rows of a run as batches count them: as its settings pack or cut them.</summary>
    public static IReadOnlyList<TrainingRow[]> RowsOf(TrainingData data, TrainingSpec spec, int maxLength)
    {
        var pretrains = spec.Method.Settings is PretrainingSettings;
        if (!spec.Training.Packing && !pretrains)
        {
            return [.. data.Rows.Select(row => new[] { row })];
        }

        // A text that is read whole for pretraining is cut into pieces, each a document of its own.
        var length = RowLength(data, spec, maxLength);
        return spec.Training.Packing
            ? Pack(data.Rows, length, pretrains ? PackingStrategy.BfdSplit : PackingStrategy.Bfd)
            : [.. data.Rows.SelectMany(row => Pack([row], length, PackingStrategy.BfdSplit)).SelectMany(row => row.Select(piece => new[] { piece }))];
    }

    /// <summary>Tokens that a packed row may have.</summary>
    public static int RowLength(TrainingData data, TrainingSpec spec, int maxLength) =>
        spec.Method.Settings is PretrainingSettings ? maxLength : spec.Training.MaxLength ?? data.Summary.LongestRow;

    /// <summary>Documents put into rows of at most <paramref name="length"/> tokens, those that share a row beside each other.</summary>
    public static IReadOnlyList<TrainingRow[]> Pack(IReadOnlyList<TrainingRow> documents, int length, PackingStrategy strategy = PackingStrategy.Bfd) =>
    [
        .. RowPacker.Pack([.. documents.Select(document => document.InputIds.Length)], length, strategy)
            .Select(row => row.Select(piece => Piece(documents[piece.Document], piece)).Where(piece => piece.TrainedCount > 0).ToArray())
            .Where(row => row.Length > 0),
    ];

    private static TrainingRow Piece(TrainingRow document, PackedPiece piece)
    {
        var kept = piece.Start..(piece.Start + piece.Length);
        return piece.Length == document.InputIds.Length ? document : document with { InputIds = document.InputIds[kept], Trained = document.Trained[kept] };
    }

    public override IReadOnlyList<MicroBatch> Window(IReadOnlyList<int[]> window, ulong seed)
    {
        var batches = window.Select(Batch).ToList();
        var share = 1.0 / batches.Sum(batch => batch.LossCount); // each micro-batch weighs by the tokens that count over the whole window
        return [.. batches.Select(batch => new MicroBatch(BatchShape.Of(batch), dropout => Train(batch, share, dropout)))];
    }

    public override (ObjectiveResult Result, double Weight) Evaluate(int[] chosen)
    {
        using var scope = NewDisposeScope();
        var batch = Batch(chosen);
        var (sum, correct) = SftLoss.Compute(model, [adapter], batch, dropout: null, settings);
        return (Result(sum, correct, 1.0 / batch.LossCount).MoveToOuterDisposeScope(), batch.LossCount);
    }

    public override void AdapterChanged() => step.AdapterChanged();

    public override void Dispose()
    {
        step.Dispose();
        base.Dispose();
    }

    private ObjectiveResult Train(SftBatch batch, double share, Generator? dropout)
    {
        using var scope = NewDisposeScope();
        var (sum, correct) = step.ForwardBackward(batch, share, dropout);
        return Result(sum, correct, share).MoveToOuterDisposeScope();
    }

    private SftBatch Batch(int[] chosen) => SftBatch.Of(chosen.SelectMany(row => rows[row])) with { PromptTargets = adapter.PromptTargets };

    private static ObjectiveResult Result(Tensor sum, Tensor correct, double share) => new(
        sum.Times(share), new Dictionary<string, Tensor> { ["mean_token_accuracy"] = correct.to(ScalarType.Float32).Times(share) });
}
