using PeftServer.Engine.Adapters.AdaLora;
using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Goldens.Tests;

/// <summary>Layers that run again on the way back give the gradients of layers that keep what they computed: of every method, on every architecture.</summary>
public sealed class GradientCheckpointCases
{
    /// <summary>Sums that come in another order, over several layers.</summary>
    private const double Tolerance = 1e-5;

    /// <summary>Methods that go on with a draw or a direction of their own in every pass: runs of theirs are compared elsewhere.</summary>
    private static readonly string[] GoesOn = ["velora", "pvera_generator", "pvera_sampled", "pvera_seeded"];

    public static TheoryData<string, string> Cases =>
    [
        .. AdapterCases.Cases.Select(row => ("adapters", row.Data)).Concat(AdapterCases.MoreCases.Select(row => ("adapters_extra", row.Data)))
            .Where(entry => !GoesOn.Any(method => entry.Data.Contains(method, StringComparison.Ordinal))),
    ];

    [Theory]
    [MemberData(nameof(Cases))]
    public void Adapter_LayersRunAgain_HasTheSameGradients(string kind, string name)
    {
        using var golden = new Golden(GoldenFolder.PathOf(kind, name));
        using var scope = NewDisposeScope();
        using var model = PretrainedModel.Load(GoldenFolder.PathOf("models", golden.Meta.GetProperty("base").GetString()!), CPU, ScalarType.Float32);
        using var adapter = AdapterCases.Initial(Path.Combine(golden.Folder, "init"), model);
        AdapterCases.SetInitial(golden, adapter);
        adapter.SetTraining(true);

        ShouldBeTheSame([.. adapter.Trainable], () => CausalCase.Of(golden, model).TrainingLoss([adapter]) is var loss && adapter.Config is AdaLoraConfig ? loss.Plus(adapter.Regularization()!) : loss);
    }

    [Theory(SkipTestWithoutData = true)]
    [MemberData(nameof(ModelCases.WithGradients), MemberType = typeof(ModelCases))]
    public void Model_LayersRunAgain_HasTheSameGradients(string name)
    {
        using var golden = new Golden(GoldenFolder.PathOf("models", name));
        using var scope = NewDisposeScope();
        using var model = PretrainedModel.Load(golden.Folder, CPU, ScalarType.Float32);
        var weights = model.Weights().Where(weight => !weight.IsBuffer).ToList();
        weights.ForEach(weight => weight.Set(weight.Value.clone().requires_grad_(true))); // the file's own pages cannot be written to

        ShouldBeTheSame(weights, () => CausalCase.Of(golden, model).TrainingLoss([]));
    }

    private static void ShouldBeTheSame(List<Weight> weights, Func<Tensor> loss)
    {
        var kept = Gradients(weights, loss, again: false);
        var again = Gradients(weights, loss, again: true);

        again.Keys.ShouldBe(kept.Keys);
        var largest = kept.Values.Max(gradient => gradient.abs().max().item<float>());
        foreach (var (weight, gradient) in kept)
        {
            // Where a gradient is rounding alone (the bias of keys), rounding is what may differ.
            (again[weight].Minus(gradient).abs().max().item<float>() <= Tolerance * Math.Max(gradient.abs().max().item<float>(), 1e-2 * largest)).ShouldBeTrue(weight.Path);
        }
    }

    private static Dictionary<Weight, Tensor> Gradients(List<Weight> weights, Func<Tensor> loss, bool again)
    {
        using var checkpoints = GradientCheckpoints.Begin(again);
        GradientCheckpoints.Backward(loss());
        var gradients = weights.Where(weight => weight.Value.grad is not null).ToDictionary(weight => weight, weight => weight.Value.grad!.clone());
        foreach (var weight in gradients.Keys)
        {
            weight.Value.grad!.zero_();
        }

        return gradients;
    }
}
