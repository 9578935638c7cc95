using PeftServer.Engine.Adapters;
using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Training;

namespace PeftServer.Goldens.Tests;

/// <summary>What a reference case of any kind can be asked.</summary>
internal interface IModelCase
{
    void CheckForward(string name, IReadOnlyList<Adapter> adapters, double tolerance = 1e-4);

    Tensor TrainingLoss(IReadOnlyList<Adapter> adapters);

    void CheckGreedy(IReadOnlyList<Adapter> adapters);
}

/// <summary>The checks of models that score sequences or tokens.</summary>
internal sealed class ClassificationCase(Golden golden, ClassificationModel model) : IModelCase
{
    /// <summary>
    /// transformers' loss of answers is a softmax over padding too, which these models give other positions or see through other scores than
    /// ours. Here nothing is padded: their logits are held to the reference, the loss is not.
    /// </summary>
    internal static bool CountsPaddingOtherwise(string name) => name is "x_roberta_qa" or "x_opt_qa" or "x_deberta_v2_qa" or "x_bloom_qa" or "x_modernbert_qa";

    private readonly PeftDraws _draws = new(golden);

    /// <summary>Padding goes through the model too, for methods that look at all tokens or draw for each.</summary>
    public bool KeepsPadding { get; init; }

    public void CheckForward(string name, IReadOnlyList<Adapter> adapters, double tolerance = 1e-4)
    {
        using var scope = NewDisposeScope();
        using var frozen = no_grad();
        var (logits, places) = Predict(adapters);

        var expected = model.Kind is PredictionKind.Sequence
            ? golden[name]
            : golden[name].flatten(0, 1).index_select(0, tensor(places.SelectMany(at => at).ToArray()));
        if (model.Kind is PredictionKind.Span && name != "logits")
        {
            // The bias of the ends has a true gradient of zero, so where training took it is chance: it is left out.
            (logits, expected) = (Centred(logits), Centred(expected));
        }

        Golden.ShouldAgree(name, logits, expected, tolerance);
        if (name == "logits" && golden.Has("loss") && !CountsPaddingOtherwise(Path.GetFileName(golden.Folder)))
        {
            Golden.ShouldAgree("loss", TrainingLoss(adapters).unsqueeze(0), golden["loss"], tolerance);
        }
    }

    public Tensor TrainingLoss(IReadOnlyList<Adapter> adapters)
    {
        if (model.Kind is not PredictionKind.Span)
        {
            var draws = _draws.Next(adapters);
            var (logits, places) = Predict(adapters, draws);
            return Loss(logits, places);
        }

        var rows = golden.Rows().Rows;
        using var batch = ForwardBatch.Padded(rows, 0, adapters, CPU);
        return ClassificationLoss.OfSpans(model.Predict(batch).view(rows.Count, -1, 2), golden["start_positions"], golden["end_positions"]);
    }

    /// <summary>Nothing is generated here.</summary>
    public void CheckGreedy(IReadOnlyList<Adapter> adapters) => golden.Has("greedy_ids").ShouldBeFalse();

    private (Tensor Logits, List<long[]> Places) Predict(IReadOnlyList<Adapter> adapters, Generator? draws = null)
    {
        var (rows, places) = golden.Rows();
        using var batch = KeepsPadding ? ForwardBatch.Padded(rows, 0, adapters, CPU, draws) : ForwardBatch.Packed(rows, adapters, CPU, draws);
        return (model.Predict(batch), places);
    }

    private Tensor Loss(Tensor logits, List<long[]> places)
    {
        var labels = model.Kind is PredictionKind.Sequence
            ? golden["labels"]
            : golden["labels"].flatten().index_select(0, tensor(places.SelectMany(at => at).ToArray()));
        return ClassificationLoss.Of(model.Problem, logits, labels);
    }

    private static Tensor Centred(Tensor logits) => logits.Minus(logits.mean([0L], keepdim: true));
}
