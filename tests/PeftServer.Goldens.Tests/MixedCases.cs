using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.Ia3;
using PeftServer.Engine.Models;

namespace PeftServer.Goldens.Tests;

/// <summary>Adapters of several methods at work on one model: PEFT's mixed models; and IA³ adapters put together into one.</summary>
public sealed class MixedCases
{
    /// <summary>In the order that PEFT nests them, from the base outwards.</summary>
    public static TheoryData<string> Sets => Has("mixed") ? ["lora", "shira_lora", "lora_loha", "shira_lora_lokr", "lora_oft", "oft_late", "loha_lokr_oft"] : [];

    [Theory(SkipTestWithoutData = true)]
    [MemberData(nameof(Sets))]
    public void Forward_AdaptersOfSeveralMethods_GivesPeftsLogits(string names)
    {
        using var scope = NewDisposeScope();
        using var golden = new Golden(GoldenFolder.PathOf("adapters_extra", "mixed"), "causal");
        using var model = PretrainedModel.Load(GoldenFolder.PathOf("models", "llama"), CPU, ScalarType.Float32);
        var adapters = names.Split('_').Select(name => AdapterFile.Load(Path.Combine(golden.Folder, name), model)).ToList();

        CausalCase.Of(golden, model).CheckForward($"logits_{names}", adapters);

        adapters.ForEach(adapter => adapter.Dispose());
    }

    [Fact]
    public void Combine_TwoOfIa3_GivesPeftsLogits()
    {
        Assert.SkipUnless(Has("ia3_weighted"), "The case is not among those of this run.");
        using var scope = NewDisposeScope();
        using var golden = new Golden(GoldenFolder.PathOf("adapters_extra", "ia3_weighted"), "causal");
        using var model = PretrainedModel.Load(GoldenFolder.PathOf("models", "llama"), CPU, ScalarType.Float32);
        using var a = AdapterFile.Load(Path.Combine(golden.Folder, "a"), model);
        using var b = AdapterFile.Load(Path.Combine(golden.Folder, "b"), model);

        using var both = Ia3Combination.Combine([(a, 0.7), (b, -0.4)]);

        CausalCase.Of(golden, model).CheckForward("logits_both", [both]);
    }

    private static bool Has(string name) => GoldenFolder.Takes("adapters_extra", name) && Directory.Exists(GoldenFolder.PathOf("adapters_extra", name));
}
