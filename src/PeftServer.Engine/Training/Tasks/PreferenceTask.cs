using PeftServer.Engine.Adapters;
using PeftServer.Engine.Data;
using PeftServer.Engine.Models;
using PeftServer.Engine.Training.Objectives;

namespace PeftServer.Engine.Training.Tasks;

/// <summary>
/// DPO, CPO, SimPO and ORPO over pairs of a better and a worse answer. Each pair of a window counts alike, whatever its tokens. DPO's reference is the base model with
/// a frozen adapter, or with none.
/// </summary>
internal sealed class PreferenceTask(
    IReadOnlyList<PreferenceRow> pairs, int maxLength, CausalLanguageModel model, Adapter adapter, object settings, Adapter? frozenAdapter = null) : TrainingTask
{
    public override int Rows => pairs.Count;

    /// <summary>AOT sorts over its batch.</summary>
    public override bool CanSplit => !(settings is DpoSettings dpo && dpo.LossType.Values.Any(type => type is DpoLossType.Aot or DpoLossType.AotUnpaired));

    public override int Tokens(int row) => (2 * pairs[row].PromptIds.Length) + pairs[row].ChosenIds.Length + pairs[row].RejectedIds.Length;

    public override IEnumerable<long> Lines(int row) => [pairs[row].Line];

    public override IReadOnlyList<MicroBatch> Window(IReadOnlyList<int[]> window, ulong seed) =>
    [
        .. window.Select(rows =>
        {
            var batch = new PairBatch([.. rows.Select(row => pairs[row])], maxLength, settings is OrpoSettings);
            return new MicroBatch(BatchShape.Of(batch.Tokens, frozenPasses: settings is DpoSettings ? 1 : 0), dropout =>
            {
                using var scope = NewDisposeScope();
                return Backward(Loss(batch, dropout), (double)rows.Length / window.Sum(each => each.Length)).MoveToOuterDisposeScope();
            });
        }),
    ];

    public override (ObjectiveResult Result, double Weight) Evaluate(int[] rows) =>
        (Loss(new PairBatch([.. rows.Select(row => pairs[row])], maxLength, settings is OrpoSettings), dropout: null), rows.Length);

    private ObjectiveResult Loss(PairBatch batch, Generator? dropout)
    {
        using var scope = NewDisposeScope();
        var reference = settings is DpoSettings ? Reference(batch.Tokens) : null;
        var policy = TokenScores.Of(model, [adapter], batch.Tokens, dropout);
        var result = settings switch
        {
            DpoSettings dpo => Dpo.Loss(policy, reference!, dpo),
            CpoSettings cpo => Cpo.Loss(policy, cpo),
            OrpoSettings orpo => Orpo.Loss(policy, tensor(batch.InCompletion, device: model.Device), orpo),
            _ => throw new InvalidOperationException($"{settings.GetType().Name} is not for pairs."),
        };
        return result.MoveToOuterDisposeScope();
    }

    private Tensor Reference(SftBatch tokens)
    {
        using var frozen = no_grad();
        return TokenScores.Of(model, frozenAdapter is null ? [] : [frozenAdapter], tokens, dropout: null).LogProbs;
    }

    /// <summary>Pairs as a batch: all chosen rows, then all rejected ones.</summary>
    private sealed class PairBatch
    {
        public PairBatch(IReadOnlyList<PreferenceRow> pairs, int maxLength, bool learnsPrompts)
        {
            var chosen = pairs.Select(pair => (pair.Chosen(maxLength), pair.Line));
            var rejected = pairs.Select(pair => (pair.Rejected(maxLength), pair.Line));
            var rows = chosen.Concat(rejected).Select(row => new TrainingRow(row.Item1.Ids, row.Item1.Trained, row.Line)).ToList();

            // ORPO's likelihood is of whole chosen rows; the completions are marked beside.
            Tokens = SftBatch.Of(rows.Select((row, i) => learnsPrompts && i < pairs.Count ? row with { Trained = Array.ConvertAll(row.Trained, _ => true) } : row));
            InCompletion = [.. rows.SelectMany((row, i) => learnsPrompts && i < pairs.Count
                ? row.Trained.Skip(1).Select(each => each ? 1f : 0f)
                : Enumerable.Repeat(1f, row.TrainedCount))];
        }

        public SftBatch Tokens { get; }

        /// <summary>For each target: 1 where it is of an answer, 0 where it is of a prompt.</summary>
        public float[] InCompletion { get; }
    }
}
