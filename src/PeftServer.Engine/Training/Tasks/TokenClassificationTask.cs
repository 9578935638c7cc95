using PeftServer.Engine.Adapters;
using PeftServer.Engine.Data;
using PeftServer.Engine.Evaluation;
using PeftServer.Engine.Models;
using PeftServer.Engine.Training.Objectives;

namespace PeftServer.Engine.Training.Tasks;

/// <summary>Words and their tags; a word is judged by its first token.</summary>
internal sealed class TokenClassificationTask(
    IReadOnlyList<TaggedSequence> sentences, IReadOnlyList<string> labels, ClassificationModel model, Adapter adapter, TokenClassificationSettings settings)
    : ScoringTask<TaggedSequence>(sentences)
{
    private readonly List<(string[] Truth, string[] Guess)> _tags = [];

    protected override long LineOf(TaggedSequence row) => row.Line;

    protected override int TokensOf(TaggedSequence row) => row.Ids.Length;

    protected override int TargetsOf(TaggedSequence row) => row.TargetCount;

    protected override (Tensor Sum, Tensor Correct) Score(IReadOnlyList<TaggedSequence> rows, Generator? dropout)
    {
        using var batch = ForwardBatch.Packed([.. rows.Select(row => row.Ids)], [adapter], model.Device, dropout);
        var marks = rows.SelectMany(row => row.Labels).ToArray();
        var places = Enumerable.Range(0, marks.Length).Where(i => marks[i] != TaggedSequence.Ignored).ToArray();
        var scores = model.Predict(batch).index_select(0, tensor(batch.PlacesOf([.. places.Select(place => (long)place)]), device: model.Device)); // [words, tags]
        var result = CrossEntropy.Of(scores, tensor(places.Select(place => (long)marks[place]).ToArray(), device: model.Device), settings.LabelSmoothingFactor);
        if (dropout is null)
        {
            Keep(rows, scores.argmax(-1).cpu().data<long>().ToArray());
        }

        return result; // kept once it is whole: a batch that did not fit comes again in parts
    }

    public override IReadOnlyDictionary<string, double> EvaluationScores()
    {
        var score = EntityScore.Micro([.. _tags.Select(each => each.Truth)], [.. _tags.Select(each => each.Guess)]);
        _tags.Clear();
        return new Dictionary<string, double> { ["f1"] = score.F1, ["precision"] = score.Precision, ["recall"] = score.Recall };
    }

    private void Keep(IReadOnlyList<TaggedSequence> rows, long[] guesses)
    {
        var at = 0;
        foreach (var row in rows)
        {
            var truth = row.Labels.Where(label => label != TaggedSequence.Ignored).Select(label => labels[label]).ToArray();
            _tags.Add((truth, [.. guesses.Skip(at).Take(truth.Length).Select(label => labels[(int)label])]));
            at += truth.Length;
        }
    }
}
