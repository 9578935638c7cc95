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

        // The file of mt5 holds the table of words once for each stack; we count it once, as PEFT does.
        var again = SafetensorsHeader.Read(Path.Combine(golden.Folder, "model.safetensors")).Entries.Keys;
        var copies = model.OtherNames().Where(entry => again.Contains(entry.Name)).Sum(entry => entry.Weight.ElementCount);
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

        var stored = SafetensorsHeader.Read(Path.Combine(folder, "model.safetensors")).Entries;
        var copies = plan.OtherNames().Where(entry => stored.ContainsKey(entry.Name)).Select(entry => $"{entry.Name} {Shape(entry.Weight)}");
        plan.Weights().Select(weight => $"{weight.Path} {Shape(weight)}").Concat(copies).Order(StringComparer.Ordinal)
            .ShouldBe(stored.Values.Select(entry => $"{entry.Name} [{string.Join(", ", entry.Shape)}]").Order(StringComparer.Ordinal));
    }

    private static string Shape(Weight weight) => $"[{string.Join(", ", weight.Shape)}]";
}
