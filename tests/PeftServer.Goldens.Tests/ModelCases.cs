using PeftServer.Engine.Models;
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

    [Theory]
    [MemberData(nameof(Cases))]
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
