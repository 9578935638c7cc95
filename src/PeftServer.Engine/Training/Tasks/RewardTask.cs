using PeftServer.Engine.Adapters;
using PeftServer.Engine.Data;
using PeftServer.Engine.Models;
using PeftServer.Engine.Training.Objectives;

namespace PeftServer.Engine.Training.Tasks;

/// <summary>Pairs of a better and a worse answer; the better shall have the higher reward. Each pair of a window counts alike.</summary>
internal sealed class RewardTask(IReadOnlyList<PreferenceRow> pairs, int maxLength, ClassificationModel model, Adapter adapter, RewardSettings settings) : TrainingTask
{
    public override int Rows => pairs.Count;

    public override int Tokens(int row) => (2 * pairs[row].PromptIds.Length) + pairs[row].ChosenIds.Length + pairs[row].RejectedIds.Length;

    public override IEnumerable<long> Lines(int row) => [pairs[row].Line];

    public override IReadOnlyList<MicroBatch> Window(IReadOnlyList<int[]> window, ulong seed) =>
    [
        .. window.Select(rows =>
        {
            var batch = rows.Select(row => pairs[row]).ToList();
            return new MicroBatch(new BatchShape([.. Sequences(batch).Select(ids => ids.Length)], 2 * batch.Count), dropout =>
            {
                using var scope = NewDisposeScope();
                return Backward(Loss(batch, dropout), (double)rows.Length / window.Sum(each => each.Length)).MoveToOuterDisposeScope();
            });
        }),
    ];

    public override (ObjectiveResult Result, double Weight) Evaluate(int[] rows) => (Loss([.. rows.Select(row => pairs[row])], dropout: null), rows.Length);

    private ObjectiveResult Loss(List<PreferenceRow> batch, Generator? dropout)
    {
        using var scope = NewDisposeScope();
        using var forward = ForwardBatch.Packed(Sequences(batch), [adapter], model.Device, dropout);
        var rewards = model.Predict(forward).to(ScalarType.Float32).squeeze(-1); // [2 · pairs]
        var margins = batch.Exists(pair => pair.Margin is not null) ? tensor(batch.Select(pair => (float)(pair.Margin ?? 0)).ToArray(), device: model.Device) : null;
        return Reward.Loss(rewards, margins, settings).MoveToOuterDisposeScope();
    }

    /// <summary>All chosen, then all rejected.</summary>
    private List<int[]> Sequences(List<PreferenceRow> batch) => [.. batch.Select(pair => pair.Chosen(maxLength).Ids), .. batch.Select(pair => pair.Rejected(maxLength).Ids)];
}
