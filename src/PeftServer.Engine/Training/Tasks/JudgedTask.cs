using PeftServer.Engine.Adapters;
using PeftServer.Engine.Data;
using PeftServer.Engine.Models;
using PeftServer.Engine.Training.Objectives;

namespace PeftServer.Engine.Training.Tasks;

/// <summary>KTO over answers that are good or bad, against the base model with a frozen adapter or with none. The divergence is measured within each micro-batch, so a larger one measures it better.</summary>
internal sealed class JudgedTask(
    IReadOnlyList<JudgedRow> judged, int maxLength, CausalLanguageModel model, Adapter adapter, KtoSettings settings, Adapter? frozenAdapter = null) : TrainingTask
{
    private readonly Adapter[] _reference = frozenAdapter is null ? [] : [frozenAdapter];

    public override int Rows => judged.Count;

    public override bool CanSplit => settings.LossType is not KtoLossType.Kto;

    public override int Tokens(int row) => 2 * (judged[row].PromptIds.Length + judged[row].CompletionIds.Length);

    public override IEnumerable<long> Lines(int row) => [judged[row].Line];

    public override IReadOnlyList<MicroBatch> Window(IReadOnlyList<int[]> window, ulong seed) =>
    [
        .. window.Select(rows =>
        {
            var batch = rows.Select(row => judged[row]).ToList();
            return new MicroBatch(BatchShape.Of(Tokens(batch), frozenPasses: settings.LossType is KtoLossType.Kto ? 3 : 1), dropout =>
            {
                using var scope = NewDisposeScope();
                return Backward(Loss(batch, dropout), (double)rows.Length / window.Sum(each => each.Length)).MoveToOuterDisposeScope();
            });
        }),
    ];

    public override (ObjectiveResult Result, double Weight) Evaluate(int[] rows) => (Loss([.. rows.Select(row => judged[row])], dropout: null), rows.Length);

    private ObjectiveResult Loss(List<JudgedRow> batch, Generator? dropout)
    {
        using var scope = NewDisposeScope();
        var tokens = Tokens(batch);
        var divergence = settings.LossType is KtoLossType.Kto ? Divergence(batch) : null;
        var reference = Frozen(_reference, tokens).LogProbs;
        var policy = TokenScores.Of(model, [adapter], tokens, dropout);
        return Kto.Loss(policy, reference, [.. batch.Select(row => row.Label)], divergence, settings).MoveToOuterDisposeScope();
    }

    private Tensor Divergence(List<JudgedRow> batch)
    {
        var mismatched = Tokens([.. batch.Zip(JudgedRow.Mismatched(batch, batch.Count), (row, completion) => row with { CompletionIds = completion })]);
        return Kto.Divergence(Frozen([adapter], mismatched), Frozen(_reference, mismatched).LogProbs);
    }

    private TokenScores Frozen(IReadOnlyList<Adapter> adapters, SftBatch tokens)
    {
        using var frozen = no_grad();
        return TokenScores.Of(model, adapters, tokens, dropout: null);
    }

    private SftBatch Tokens(List<JudgedRow> batch) => SftBatch.Of(batch.Select(row =>
    {
        var whole = row.Completion(maxLength);
        return new TrainingRow(whole.Ids, whole.Trained, row.Line);
    }));
}
