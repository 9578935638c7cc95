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

        model.ParameterCount.ShouldBe(golden.Meta.GetProperty("parameters").GetInt64());
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

        var stored = SafetensorsHeader.Read(Path.Combine(folder, "model.safetensors")).Entries;
        plan.Weights().Select(weight => weight.ToString()).Order(StringComparer.Ordinal)
            .ShouldBe(stored.Values.Select(entry => $"{entry.Name} [{string.Join(", ", entry.Shape)}]").Order(StringComparer.Ordinal));
    }
}
