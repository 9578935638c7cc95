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

    /// <summary>What draws (PEFT's generator was seeded with 11 before each), and other options.</summary>
    public static TheoryData<string, LoraCombination> MoreCombinations => !GoldenFolder.Takes("adapters_extra", "weighted_more") || !Directory.Exists(GoldenFolder.PathOf("adapters_extra", "weighted_more")) ? [] : new()
    {
        { "dare_linear", new(LoraCombinationType.DareLinear, Density: 0.5, Seed: 11) },
        { "dare_ties", new(LoraCombinationType.DareTies, Density: 0.5, Seed: 11) },
        { "dare_linear_svd", new(LoraCombinationType.DareLinearSvd, Density: 0.5, Seed: 11) },
        { "dare_ties_svd", new(LoraCombinationType.DareTiesSvd, Density: 0.5, Seed: 11) },
        { "dare_ties_frequency", new(LoraCombinationType.DareTies, Density: 0.7, CountsSigns: true, Seed: 11) },
        { "ties_frequency", new(LoraCombinationType.Ties, Density: 0.5, CountsSigns: true) },
        { "svd_rank", new(LoraCombinationType.Svd, SvdRank: 2) },
        { "svd_thin", new(LoraCombinationType.Svd) },
        { "svd_clamp", new(LoraCombinationType.Svd, SvdClamp: 0.9) },
        { "negative", new(LoraCombinationType.Linear) },
    };

    [Theory(SkipTestWithoutData = true)]
    [MemberData(nameof(MoreCombinations))]
    public void Combine_DrawsAndOptions_GivesPeftsLogits(string name, LoraCombination combination)
    {
        using var scope = NewDisposeScope();
        using var golden = new Golden(GoldenFolder.PathOf("adapters_extra", "weighted_more"), "causal");
        using var model = Llama();
        using var a = AdapterFile.Load(GoldenFolder.PathOf("adapters", "weighted", "a"), model);
        using var b = AdapterFile.Load(GoldenFolder.PathOf("adapters", "weighted", "b"), model);

        using var combined = combination.Combine([(a, 0.7), (b, name == "negative" ? -0.3 : 0.3)]);

        CausalCase.Of(golden, model).CheckForward($"logits_{name}", [combined]);
    }

    /// <summary>PEFT saves the router in a folder beside those of the adapters, which the case left out: they are other cases' adapters.</summary>
    [Theory(SkipTestWithoutData = true)]
    [InlineData("one")]
    [InlineData("all")]
    [InlineData("general")]
    public void Arrow_AsPeftSavesIt_LoadsAndSavesTheSame(string name)
    {
        Assert.SkipUnless(GoldenFolder.Takes("adapters_extra", "arrow_more") && Directory.Exists(GoldenFolder.PathOf("adapters_extra", "arrow_more")), "The case is not among those of this run.");
        using var scope = NewDisposeScope();
        using var golden = new Golden(GoldenFolder.PathOf("adapters_extra", "arrow_more"));
        using var model = Llama();
        var (folder, saved) = (Directory.CreateTempSubdirectory("peftserver-arrow-").FullName, Directory.CreateTempSubdirectory("peftserver-arrow-").FullName);
        Copy(Path.Combine(golden.Folder, name, "arrow_router"), Path.Combine(folder, "arrow_router"));
        (string Folder, string Case)[] experts =
            [("task_0", "weighted/a"), ("task_1", "weighted/b"), ("task_2", "lora_random_init/trained"), ("gks_0", "lora__llama/trained"), ("gks_1", "lora_random_init/trained")];
        foreach (var expert in experts)
        {
            Copy(GoldenFolder.PathOf("adapters", expert.Case), Path.Combine(folder, expert.Folder));
        }

        using var arrow = AdapterFile.Load(folder, model);
        AdapterFile.Save(arrow, saved, "llama");
        using var again = AdapterFile.Load(saved, model);

        var causal = CausalCase.Of(golden, model);
        causal.CheckForward($"logits_{name}", [arrow]);
        causal.CheckForward($"logits_{name}", [again]);
        AdapterCases.CheckConfig(Path.Combine(saved, AdapterFile.ConfigName), Path.Combine(folder, "arrow_router", AdapterFile.ConfigName));
        File.ReadAllBytes(Path.Combine(saved, AdapterFile.WeightsName)).AsSpan()
            .SequenceEqual(File.ReadAllBytes(Path.Combine(folder, "arrow_router", AdapterFile.WeightsName))).ShouldBeTrue();
        Directory.Delete(folder, recursive: true);
        Directory.Delete(saved, recursive: true);

        static void Copy(string from, string to)
        {
            Directory.CreateDirectory(to);
            Directory.GetFiles(from).ToList().ForEach(file => File.Copy(file, Path.Combine(to, Path.GetFileName(file))));
        }
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
        var prefix = subtracts ? "gks." : "";
        string[] Names(string count) => [.. Enumerable.Range(0, golden.Meta.GetProperty(count).GetInt32()).Select(i => $"{i}")];
        var config = new LoraConfig
        {
            ExpertFolder = golden.Folder,
            ArrowConfig = new()
            {
                TopK = golden.Meta.GetProperty("top_k").GetInt32(),
                RouterTemperature = golden.Meta.GetProperty("router_temperature").GetDouble(),
                RngSeed = golden.Meta.GetProperty("rng_seed").GetInt64(),
                UseGks = subtracts,
                TaskAdapterNames = Names("tasks"),
                GksAdapterNames = subtracts ? Names("general") : null,
            },
        };

        using var arrow = (ArrowAdapter)config.CreateAdapter(model);
        arrow.Initialize(1);

        foreach (var name in golden.Names.Where(name => name.StartsWith($"{prefix}prototypes.", StringComparison.Ordinal)))
        {
            Golden.ShouldAgree(name, arrow.Prototypes(name[$"{prefix}prototypes.{Adapter.Prefix}".Length..]), golden[name], 1e-4);
        }

        CausalCase.Of(golden, model).CheckForward($"{prefix}logits", [arrow]);
    }

    private static CausalLanguageModel Llama() => (CausalLanguageModel)PretrainedModel.Load(GoldenFolder.PathOf("models", "llama"), CPU, ScalarType.Float32);
}
