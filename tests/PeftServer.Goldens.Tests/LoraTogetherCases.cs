using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.Lora;
using PeftServer.Engine.Models;

namespace PeftServer.Goldens.Tests;

/// <summary>LoRA adapters that work together: combined into one, beside each other in a batch, routed by Arrow.</summary>
public sealed class LoraTogetherCases
{
    public static TheoryData<LoraCombinationType> Combinations => !GoldenFolder.Takes("adapters", "weighted") ? [] :
    [
        LoraCombinationType.Linear, LoraCombinationType.Cat, LoraCombinationType.Svd, LoraCombinationType.Ties, LoraCombinationType.TiesSvd,
        LoraCombinationType.MagnitudePrune, LoraCombinationType.MagnitudePruneSvd,
    ];

    [Theory(SkipTestWithoutData = true)]
    [MemberData(nameof(Combinations))]
    public void Combine_TwoAdapters_GivesPeftsLogits(LoraCombinationType type)
    {
        using var scope = NewDisposeScope();
        using var golden = new Golden(GoldenFolder.PathOf("adapters", "weighted"), "causal");
        using var model = Llama();
        using var a = AdapterFile.Load(Path.Combine(golden.Folder, "a"), model);
        using var b = AdapterFile.Load(Path.Combine(golden.Folder, "b"), model);

        using var combined = new LoraCombination(type, Density: 0.5).Combine([(a, 0.7), (b, 0.3)]);

        CausalCase.Of(golden, model).CheckForward($"logits_{System.Text.Json.JsonNamingPolicy.SnakeCaseLower.ConvertName(type.ToString())}", [combined]);
    }

    [Theory(SkipTestWithoutData = true)]
    [InlineData("logits_mixed_batch", "a", "b")]
    [InlineData("logits_mixed_base", "b", null)]
    public void Forward_RowsUnderDifferentAdapters_GivesPeftsLogits(string name, string first, string? second)
    {
        Assert.SkipUnless(GoldenFolder.Takes("adapters", "weighted"), "The case is not among those of this run.");
        using var scope = NewDisposeScope();
        using var frozen = no_grad();
        using var golden = new Golden(GoldenFolder.PathOf("adapters", "weighted"), "causal");
        using var model = Llama();
        using var a = AdapterFile.Load(Path.Combine(golden.Folder, "a"), model);
        using var b = AdapterFile.Load(Path.Combine(golden.Folder, "b"), model);
        IReadOnlyList<Adapter> Named(string? adapter) => adapter switch { "a" => [a], "b" => [b], _ => [] };
        var (rows, places) = golden.Rows();
        var caches = rows.ConvertAll(_ => new KeyValueCache(model.LayerCount));

        using var batch = ForwardBatch.Cached([new CachedSequence(rows[0], caches[0], Named(first)), new CachedSequence(rows[1], caches[1], Named(second))], CPU);
        var logits = model.Logits(model.Hidden(batch), batch);

        caches.ForEach(cache => cache.Dispose());
        Golden.ShouldAgree(name, logits, golden[name].flatten(0, 1).index_select(0, tensor(places.SelectMany(at => at).ToArray())), 1e-4);
    }

    [Theory(SkipTestWithoutData = true)]
    [InlineData(false)]
    [InlineData(true)]
    public void Arrow_ThreeAdapters_GivesPeftsLogits(bool subtracts)
    {
        Assert.SkipUnless(GoldenFolder.Takes("adapters", "lora_arrow"), "The case is not among those of this run.");
        using var scope = NewDisposeScope();
        using var golden = new Golden(GoldenFolder.PathOf("adapters", "lora_arrow"));
        using var model = Llama();
        string[] Folders(string kind, string count) => [.. Enumerable.Range(0, golden.Meta.GetProperty(count).GetInt32()).Select(i => Path.Combine(golden.Folder, $"{kind}_{i}"))];
        var settings = new ArrowSettings(
            golden.Meta.GetProperty("top_k").GetInt32(), golden.Meta.GetProperty("router_temperature").GetDouble(), golden.Meta.GetProperty("rng_seed").GetUInt64());
        var prefix = subtracts ? "gks." : "";

        using var arrow = ArrowAdapter.Load(Folders("task", "tasks"), subtracts ? Folders("gks", "general") : [], settings, model);

        foreach (var name in golden.Names.Where(name => name.StartsWith($"{prefix}prototypes.", StringComparison.Ordinal)))
        {
            Golden.ShouldAgree(name, arrow.Prototypes(name[$"{prefix}prototypes.{Adapter.Prefix}".Length..]), golden[name], 1e-4);
        }

        CausalCase.Of(golden, model).CheckForward($"{prefix}logits", [arrow]);
    }

    private static CausalLanguageModel Llama() => (CausalLanguageModel)PretrainedModel.Load(GoldenFolder.PathOf("models", "llama"), CPU, ScalarType.Float32);
}
