using PeftServer.Engine.Adapters;
using PeftServer.Engine.Data;
using PeftServer.Engine.Models;
using PeftServer.Engine.Training.Objectives;

namespace PeftServer.Engine.Training.Tasks;

/// <summary>Texts and what becomes of them, by teacher forcing: the decoder is fed what it should have written, one place to the right.</summary>
internal sealed class Seq2SeqTask(IReadOnlyList<SequencePair> pairs, Seq2SeqLanguageModel model, Adapter adapter, Seq2SeqSettings settings) : ScoringTask<SequencePair>(pairs)
{
    protected override long LineOf(SequencePair row) => row.Line;

    protected override int TokensOf(SequencePair row) => row.SourceIds.Length + row.TargetIds.Length;

    protected override int TargetsOf(SequencePair row) => row.TargetIds.Length;

    protected override BatchShape ShapeOf(IReadOnlyList<SequencePair> rows) =>
        new([.. rows.Select(row => row.TargetIds.Length)], rows.Sum(TargetsOf)) { Sources = [.. rows.Select(row => row.SourceIds.Length)] };

    protected override (Tensor Sum, Tensor Correct) Score(IReadOnlyList<SequencePair> rows, Generator? dropout)
    {
        using var source = model.Read([.. rows.Select(row => row.SourceIds)], [adapter], dropout);
        using var batch = ForwardBatch.Packed([.. rows.Select(row => row.TargetIds.SkipLast(1).Prepend(model.StartToken).ToArray())], [adapter], model.Device, dropout, source: source);
        var places = batch.PlacesOf([.. Enumerable.Range(0, rows.Sum(row => row.TargetIds.Length)).Select(place => (long)place)]);
        var scores = model.Logits(model.Hidden(batch).index_select(0, tensor(places, device: model.Device)), batch); // [targets, vocabulary]
        return CrossEntropy.Of(scores, tensor(rows.SelectMany(row => row.TargetIds.Select(id => (long)id)).ToArray(), device: model.Device), settings.LabelSmoothingFactor);
    }
}
