using PeftServer.Engine.Adapters;
using PeftServer.Engine.Data;
using PeftServer.Engine.Models;
using PeftServer.Engine.Training.Objectives;

namespace PeftServer.Engine.Training.Tasks;

/// <summary>
/// Texts that are alike: their vectors, means over their tokens, shall be near each other. What else is in a micro-batch is what they shall be far from, so a
/// larger one teaches more; each micro-batch counts alike.
/// </summary>
internal sealed class EmbeddingTask(IReadOnlyList<TextGroup> groups, ClassificationModel model, Adapter adapter, EmbeddingSettings settings) : TrainingTask
{
    public override int Rows => groups.Count;

    public override bool CanSplit => false;

    public override int Tokens(int row) => groups[row].Texts.Sum(text => text.Length);

    public override IEnumerable<long> Lines(int row) => [groups[row].Line];

    public override IReadOnlyList<MicroBatch> Window(IReadOnlyList<int[]> window, ulong seed) =>
    [
        .. window.Select(rows =>
        {
            var batch = rows.Select(row => groups[row]).ToList();
            return new MicroBatch(new BatchShape([.. batch.SelectMany(group => group.Texts.Select(text => text.Length))], 0), dropout =>
            {
                using var scope = NewDisposeScope();
                return Backward(Loss(batch, dropout), 1.0 / window.Count).MoveToOuterDisposeScope();
            });
        }),
    ];

    public override (ObjectiveResult Result, double Weight) Evaluate(int[] rows) => (Loss([.. rows.Select(row => groups[row])], dropout: null), rows.Length);

    private ObjectiveResult Loss(List<TextGroup> batch, Generator? dropout)
    {
        using var scope = NewDisposeScope();
        var columns = batch[0].Texts.Count;

        // All columns in one pass: [columns · rows, width].
        using var forward = ForwardBatch.Packed(
            [.. Enumerable.Range(0, columns).SelectMany(column => batch.Select(group => group.Texts[column]))], [adapter], model.Device, dropout);
        var vectors = Pooling.Mean(model.Predict(forward), forward).to(ScalarType.Float32).split(batch.Count, 0); // columns of [rows, width]
        var result = batch[0].Score is null
            ? Contrastive.Loss(vectors, settings)
            : Contrastive.CosentLoss(vectors[0], vectors[1], [.. batch.Select(group => group.Score!.Value)], settings);
        return result.MoveToOuterDisposeScope();
    }
}
