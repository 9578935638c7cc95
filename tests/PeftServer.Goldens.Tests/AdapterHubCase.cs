using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.AdapterHub;
using PeftServer.Engine.Models;

namespace PeftServer.Goldens.Tests;

/// <summary>One case of the adapters library: what any of them is asked, whatever its head.</summary>
internal sealed class AdapterHubCase
{
    private readonly Golden _golden;
    private readonly PretrainedModel _model;
    private readonly string _kind;

    public AdapterHubCase(Golden golden, PretrainedModel model) =>
        (_golden, _model, _kind) = (golden, model, golden.Meta.GetProperty("kind").GetString()!);

    /// <summary>Logits of the case's batch: of every real token one after another, or of every sequence.</summary>
    public Tensor Logits(IReadOnlyList<Adapter> adapters, HubPredictionHead? head = null)
    {
        using var scope = NewDisposeScope();
        using var batch = Batch(adapters);
        var logits = _model switch
        {
            ClassificationModel classifier when head is null => classifier.Predict(batch),
            ClassificationModel classifier => head!.Predict(classifier.Predict(batch), batch),
            CausalLanguageModel causal => causal.Logits(causal.Hidden(batch), batch),
            _ => throw new NotSupportedException($"{_model.GetType().Name} of kind {_kind} has no runner."),
        };
        return logits.MoveToOuterDisposeScope();
    }

    public ForwardBatch Batch(IReadOnlyList<Adapter> adapters) => ForwardBatch.Packed(_golden.Rows().Rows, adapters, CPU);

    public void Check(string name, Tensor logits, double tolerance = 1e-4) => Golden.ShouldAgree(name, logits, Expected(name), tolerance);

    /// <summary>The case's tensor over the places that were computed.</summary>
    public Tensor Expected(string name)
    {
        var expected = _golden[name];
        return _kind == "seqcls"
            ? expected
            : expected.flatten(0, 1).index_select(0, tensor(_golden.Rows().Places.SelectMany(at => at).ToArray()));
    }

    public Tensor Loss(Tensor logits) => _kind switch
    {
        "causal" => ((CausalCase)CausalCase.Of(_golden, _model)).Loss(logits, _golden.Rows().Places),
        "seqcls" => F.cross_entropy(logits, _golden["labels"]),
        "mlm" => F.cross_entropy(logits, _golden["labels"].flatten().index_select(0, tensor(_golden.Rows().Places.SelectMany(at => at).ToArray())), ignore_index: -100),
        _ => throw new NotSupportedException($"Cases of kind '{_kind}' have no loss here."),
    };
}
