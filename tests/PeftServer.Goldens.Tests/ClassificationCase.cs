using PeftServer.Engine.Adapters;
using PeftServer.Engine.Models;

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
    public void CheckForward(string name, IReadOnlyList<Adapter> adapters, double tolerance = 1e-4)
    {
        using var scope = NewDisposeScope();
        using var frozen = no_grad();
        var (logits, places) = Predict(adapters);

        var expected = model.Kind is PredictionKind.Sequence
            ? golden[name]
            : golden[name].flatten(0, 1).index_select(0, tensor(places.SelectMany(at => at).ToArray()));
        Golden.ShouldAgree(name, logits, expected, tolerance);
        if (name == "logits" && golden.Has("loss") && model.Kind is not PredictionKind.Span)
        {
            Golden.ShouldAgree("loss", Loss(logits, places).unsqueeze(0), golden["loss"], tolerance);
        }
    }

    public Tensor TrainingLoss(IReadOnlyList<Adapter> adapters)
    {
        var (logits, places) = Predict(adapters);
        return Loss(logits, places);
    }

    /// <summary>Nothing is generated here.</summary>
    public void CheckGreedy(IReadOnlyList<Adapter> adapters) => golden.Has("greedy_ids").ShouldBeFalse();

    private (Tensor Logits, List<long[]> Places) Predict(IReadOnlyList<Adapter> adapters)
    {
        var (rows, places) = golden.Rows();
        using var batch = ForwardBatch.Packed(rows, adapters, CPU);
        return (model.Predict(batch), places);
    }

    private Tensor Loss(Tensor logits, List<long[]> places)
    {
        if (model.Kind is PredictionKind.Span)
        {
            throw new NotSupportedException("The loss of a span needs the scores of padding, which are not computed.");
        }

        var labels = model.Kind is PredictionKind.Sequence
            ? golden["labels"]
            : golden["labels"].flatten().index_select(0, tensor(places.SelectMany(at => at).ToArray()));
        return F.cross_entropy(logits.to(ScalarType.Float32), labels);
    }
}
