using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.Lora;
using PeftServer.Engine.Models;

namespace PeftServer.Goldens.Tests;

/// <summary>Adapters of other methods as LoRA, against PEFT's <c>save_as_lora</c>: settings, shapes, and what the LoRA gives.</summary>
public sealed class ConversionCases
{
    private static readonly string[] Methods = ["loha", "lokr", "vera", "miss", "miss_mini", "waveft", "lora"];

    public static TheoryData<string, string> Cases =>
        !GoldenFolder.Takes("adapters_extra", "converted") || !Directory.Exists(GoldenFolder.PathOf("adapters_extra", "converted")) ? []
        : [.. Methods.SelectMany(method => new[] { (method, "3"), (method, "0.9") })];

    [Theory(SkipTestWithoutData = true)]
    [MemberData(nameof(Cases))]
    public void Convert_ToRankOrShare_GivesPeftsLora(string method, string rank)
    {
        using var scope = NewDisposeScope();
        using var golden = new Golden(GoldenFolder.PathOf("adapters_extra", "converted"), "causal");
        using var model = PretrainedModel.Load(GoldenFolder.PathOf("models", "llama"), CPU, ScalarType.Float32);
        using var adapter = AdapterFile.Load(Path.Combine(golden.Folder, method), model);
        var theirs = Path.Combine(golden.Folder, $"{method}_{rank}");
        var ours = Directory.CreateTempSubdirectory("peftserver-converted-").FullName;

        using (var lora = rank == "3" ? LoraConversion.ToRank(adapter, 3) : LoraConversion.ToShare(adapter, 0.9))
        {
            AdapterFile.Save(lora, ours, "llama");
        }

        using var loaded = AdapterFile.Load(ours, model);
        CausalCase.Of(golden, model).CheckForward($"logits_{method}_{rank}", [loaded]);
        AdapterCases.CheckConfig(Path.Combine(ours, AdapterFile.ConfigName), Path.Combine(theirs, AdapterFile.ConfigName));
        using var reloaded = AdapterFile.Load(theirs, model);
        loaded.State.Select(Line).Order().ShouldBe(reloaded.State.Select(Line).Order());
        Directory.Delete(ours, recursive: true);
    }

    private static string Line((string Key, Engine.Weights.Weight Weight) entry) => $"{entry.Key} [{string.Join(", ", entry.Weight.Shape)}]";
}
