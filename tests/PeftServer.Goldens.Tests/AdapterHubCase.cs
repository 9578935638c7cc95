using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.AdapterHub;
using PeftServer.Engine.Models;

namespace PeftServer.Goldens.Tests;

/// <summary>The checks of a body without a head of its own under a flexible head of the adapters library.</summary>
internal sealed class AdapterHubCase(Golden golden, ClassificationModel model, HubPredictionHead head) : IModelCase
{
    /// <summary>How a case with this adapter is asked: by its model's head, or by the flexible one.</summary>
    public static IModelCase Of(Golden golden, PretrainedModel model, HubAdapter adapter) => (model, adapter.Head) switch
    {
        (ClassificationModel body, HubPredictionHead flexible) => new AdapterHubCase(golden, body, flexible),
        _ when adapter.IsGated => new GatedCase(golden, model),
        _ => CausalCase.Of(golden, model),
    };

    public void CheckForward(string name, IReadOnlyList<Adapter> adapters, double tolerance = 1e-4)
    {
        using var scope = NewDisposeScope();
        using var frozen = no_grad();
        Golden.ShouldAgree(name, Predict(adapters), head.Type == "classification" ? golden[name] : Real(golden[name].flatten(0, 1)), tolerance);
    }

    public Tensor TrainingLoss(IReadOnlyList<Adapter> adapters) =>
        F.cross_entropy(Predict(adapters), head.Type == "classification" ? golden["labels"] : Real(golden["labels"].flatten()), ignore_index: -100);

    /// <summary>Nothing is generated here.</summary>
    public void CheckGreedy(IReadOnlyList<Adapter> adapters) => golden.Has("greedy_ids").ShouldBeFalse();

    private Tensor Predict(IReadOnlyList<Adapter> adapters)
    {
        using var batch = ForwardBatch.Packed(golden.Rows().Rows, adapters, CPU);
        return head.Predict(model.Predict(batch), batch);
    }

    private Tensor Real(Tensor padded) => padded.index_select(0, tensor(golden.Rows().Places.SelectMany(at => at).ToArray()));
}
