using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Goldens.Tests;

/// <summary>Base models against transformers: logits, loss, greedy tokens.</summary>
public sealed class ModelCases
{
    public static TheoryData<string> Cases => [.. GoldenFolder.Cases("models", "golden.safetensors")];

    [Theory]
    [MemberData(nameof(Cases))]
    public void Model_Forward_GivesTransformersNumbers(string name)
    {
        using var golden = new Golden(GoldenFolder.PathOf("models", name));
        using var scope = NewDisposeScope();
        using var model = PretrainedModel.Load(golden.Folder, CPU, ScalarType.Float32);

        // The file of mt5 holds the table of words once for each stack, and transformers counts it so; we count it once, as PEFT does.
        var copies = model.WeightPlan().Place(SafetensorsCheckpoint.Entries(golden.Folder).Select(entry => entry.Name)).Whole
            .Sum(entry => (entry.Value.Count - 1) * entry.Key.ElementCount);
        (model.ParameterCount + copies).ShouldBe(golden.Meta.GetProperty("parameters").GetInt64());
        CausalCase.Of(golden, model).CheckForward("logits", []);
        CausalCase.Of(golden, model).CheckGreedy([]);
    }

    /// <summary>Cases whose checkpoint's every gradient is known: variants of architectures, and heads.</summary>
    public static TheoryData<string> WithGradients => [.. Cases.Select(row => row.Data).Where(name =>
    {
        using var golden = new Golden(GoldenFolder.PathOf("models", name));
        return golden.Names.Any(tensor => tensor.StartsWith(Gradient, StringComparison.Ordinal)) && !ClassificationCase.CountsPaddingOtherwise(name);
    })];

    private const string Gradient = "grad.";

    /// <summary>The part of the largest gradient that is nothing.</summary>
    private const float Nothing = 1e-6f;

    [Theory(SkipTestWithoutData = true)]
    [MemberData(nameof(WithGradients))]
    public void Model_Backward_GivesTransformersGradients(string name)
    {
        using var golden = new Golden(GoldenFolder.PathOf("models", name));
        using var scope = NewDisposeScope();
        using var model = PretrainedModel.Load(golden.Folder, CPU, ScalarType.Float32);
        var weights = model.Weights().Where(weight => !weight.IsBuffer).ToList();
        foreach (var weight in weights)
        {
            weight.Set(weight.Value.clone().requires_grad_(true)); // the file's own pages cannot be written to
        }

        CausalCase.Of(golden, model).TrainingLoss([]).backward();

        // A weight that the reference holds several times (mT5's table of words) has the sum of its gradients here.
        var names = model.Weights().Select(weight => (Name: weight.Path, Weight: weight)).Concat(model.OtherNames()).ToDictionary(entry => entry.Name, entry => entry.Weight);
        var expected = golden.Names.Where(tensor => tensor.StartsWith(Gradient, StringComparison.Ordinal)).ToLookup(tensor => names[tensor[Gradient.Length..]], tensor => golden[tensor]);
        expected.Count.ShouldBeGreaterThan(5);
        var largest = expected.SelectMany(tensors => tensors).Max(tensor => tensor.abs().max().item<float>());
        foreach (var tensors in expected)
        {
            var (ours, theirs) = (tensors.Key.Value.grad!, tensors.Aggregate((a, b) => a.Plus(b)));
            if (theirs.abs().max().item<float>() < Nothing * largest)
            {
                // What shifts all scores of a softmax alike (the bias of keys, of the ends of an answer) has none: it is rounding alone.
                ours.abs().max().item<float>().ShouldBeLessThan(10 * Nothing * largest, tensors.Key.Path);
                continue;
            }

            if (tensors.Key == model.TokenEmbedding?.weight && model is ClassificationModel { Kind: PredictionKind.Span } && theirs[0].count_nonzero().item<long>() == 0)
            {
                ours[0].zero_(); // padding is among the tokens, and some of transformers' tables never learn it
            }

            Golden.ShouldAgree(tensors.Key.Path, ours, theirs, 1e-3);
        }
    }

    /// <summary>The routers of one case are so near to undecided that bfloat16 picks other experts, as it does in transformers.</summary>
    public static TheoryData<string> Smooth => [.. Cases.Select(row => row.Data).Where(name => name != "x_qwen3_moe_qa")];

    [Theory]
    [MemberData(nameof(Smooth))]
    public void Model_InBfloat16_StaysNearTransformersNumbers(string name)
    {
        using var golden = new Golden(GoldenFolder.PathOf("models", name));
        using var scope = NewDisposeScope();
        using var model = PretrainedModel.Load(golden.Folder, CPU, ScalarType.BFloat16);

        CausalCase.Of(golden, model).CheckForward("logits", [], tolerance: 3e-2);
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void Plan_WithoutWeights_HasTheCheckpointsNamesAndShapes(string name)
    {
        var folder = GoldenFolder.PathOf("models", name);

        var plan = PretrainedModel.Plan(folder);

        var stored = SafetensorsCheckpoint.Entries(folder).ToDictionary(entry => entry.Name, entry => entry.Shape.ToList());
        var placement = plan.WeightPlan().Place(stored.Keys);
        placement.Missing.ShouldBeEmpty();
        placement.Unexpected.ShouldBeEmpty();
        placement.Ignored.ShouldBeEmpty();
        foreach (var (weight, names) in placement.Whole)
        {
            names.ShouldAllBe(name => stored[name].SequenceEqual(weight.Shape));
        }

        foreach (var (weight, rows) in placement.InPieces)
        {
            var shape = stored[rows[0][0]];
            shape[0] = rows[0].Sum(name => stored[name][0]);
            shape.Prepend(rows.Count).ShouldBe(weight.Shape);
        }
    }
}
