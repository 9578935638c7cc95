using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.Boft;
using PeftServer.Engine.Adapters.Hira;
using PeftServer.Engine.Adapters.Oft;
using PeftServer.Engine.Adapters.Pvera;
using PeftServer.Engine.Adapters.Shadow;
using PeftServer.Engine.Adapters.Vblora;
using PeftServer.Engine.Adapters.WaveFt;
using PeftServer.Engine.Models;
using PeftServer.Engine.Native;

namespace PeftServer.Engine.Tests.Adapters;

/// <summary>Options of methods on projections: what they drop and draw and when, and what they save.</summary>
public sealed class MethodOptionTests
{
    private const int Width = 64;

    private static readonly ModuleSelector OneModule = ModuleSelector.Of("model.layers.0.self_attn.v_proj");

    [Fact]
    public void Forward_BoftDropout_LeavesThatManyBlocksAsTheyAreInTrainingAlone()
    {
        using var scope = NewDisposeScope();
        using var frozen = no_grad();
        using var model = RandomLlama.Create(CPU, ScalarType.Float32);
        using var adapter = New(new BoftConfig { BoftBlockSize = 4, BoftDropout = 0.3, InitWeights = false, TargetModules = OneModule }, model);
        adapter.State.Single(entry => entry.Key.EndsWith("boft_s", StringComparison.Ordinal)).Weight.Ones(CPU);

        var left = Enumerable.Range(0, 6).Select(seed => Unturned(adapter, (ulong)seed)).ToList();

        left.ShouldAllBe(blocks => blocks.Count == 4); // of 16
        left.Select(blocks => string.Join(",", blocks)).Distinct().Count().ShouldBeGreaterThan(1);
        Unturned(adapter, null).ShouldBeEmpty();
    }

    [Fact]
    public void Forward_OftModuleDropout_DropsNothingAsInPeft()
    {
        using var scope = NewDisposeScope();
        using var frozen = no_grad();
        using var model = RandomLlama.Create(CPU, ScalarType.Float32);
        using var adapter = New(new OftConfig { OftBlockSize = 4, ModuleDropout = 0.5, InitWeights = false, TargetModules = OneModule }, model);

        Unturned(adapter, 3).ShouldBeEmpty();
        Forward(adapter, 3).equal(Forward(adapter, null)).all().item<bool>().ShouldBeTrue();
    }

    [Fact]
    public void Delta_PveraThatSamplesInInference_DrawsAroundItsMean()
    {
        using var scope = NewDisposeScope();
        using var frozen = no_grad();
        using var model = RandomLlama.Create(CPU, ScalarType.Float32);
        var config = new PveraConfig { R = 4, InitWeights = false, TargetModules = OneModule };
        using var still = New(config, model);
        using var sampled = New(config with { SampleAtInference = true }, model);
        var mean = Forward(still, null);

        var draws = stack([.. Enumerable.Range(0, 400).Select(_ => Forward(sampled, null))]); // [400, n, out]

        draws[0].Minus(draws[1]).abs().max().item<float>().ShouldBeGreaterThan(0);
        var error = draws.mean([0]).Minus(mean).abs().max().item<float>();
        error.ShouldBeLessThan(6 * draws.std(0).max().item<float>() / 20); // six deviations of a mean of 400
    }

    [Fact]
    public void Delta_PveraWithASeed_GoesOnWhereItsDrawsStoodWhenARunResumes()
    {
        using var scope = NewDisposeScope();
        using var frozen = no_grad();
        using var model = RandomLlama.Create(CPU, ScalarType.Float32);
        var config = new PveraConfig { R = 4, InitWeights = false, GeneratorSeed = 5, TargetModules = OneModule };
        using var first = New(config, model);
        using var second = New(config, model);
        var begun = Forward(first, 1);
        Forward(second, 2).equal(begun).all().item<bool>().ShouldBeTrue("its seed decides, not that of the step");
        var kept = first.Progress.Select(entry => entry.Tensor.clone()).ToList();
        var next = Forward(first, 1);
        next.equal(begun).all().item<bool>().ShouldBeFalse();

        using var resumed = New(config, model);
        resumed.Progress.Zip(kept).ToList().ForEach(entry => entry.First.Tensor.copy_(entry.Second));
        resumed.Resume();

        Forward(resumed, 1).equal(next).all().item<bool>().ShouldBeTrue();
    }

    [Theory]
    [InlineData(1, 300)]
    [InlineData(3, 16)]
    public void Save_VbloraOfTheBestAlone_DoesTheSameWhenLoadedAndCannotTrainOn(int best, int count)
    {
        using var scope = NewDisposeScope();
        using var frozen = no_grad();
        using var model = RandomLlama.Create(CPU, ScalarType.Float32);
        using var adapter = New(new VbloraConfig { R = 4, NumVectors = count, VectorLength = 8, Topk = best, SaveOnlyTopkWeights = true, TargetModules = OneModule }, model);
        var folder = Directory.CreateTempSubdirectory("peftserver-adapter-").FullName;
        AdapterFile.Save(adapter, folder, "random-llama");
        var size = new FileInfo(Path.Combine(folder, AdapterFile.WeightsName)).Length;

        using var loaded = AdapterFile.Load(folder, model);

        Directory.Delete(folder, recursive: true);
        AdapterFile.SizeOf(adapter).ShouldBe(size);
        Forward(loaded, null).Minus(Forward(adapter, null)).abs().max().item<float>().ShouldBeLessThan(1e-6f);
        adapter.SetTraining(true);
        Should.Throw<AdapterException>(() => loaded.SetTraining(true)).Message.ShouldContain("save_only_topk_weights");
    }

    [Fact]
    public void CreateAdapter_WaveFtInProportion_SharesItsCountBySize()
    {
        using var model = RandomLlama.Create(CPU, ScalarType.Float32);
        var config = new WaveFtConfig { NFrequency = 10, ProportionalParameters = true, NFrequencyPattern = new Dictionary<string, int> { ["q_proj"] = 3 }, TargetModules = ModuleSelector.Of("q_proj", "up_proj"), LayersToTransform = new([0], false) };
        using var adapter = config.CreateAdapter(model);
        var sizes = adapter.Parts.Select(entry => (double)entry.Site.Weight.ElementCount).ToList();

        var counts = adapter.Parts.Select(entry => entry.Part.State.Single().Weight.ElementCount).ToList();

        sizes.Distinct().Count().ShouldBe(2);
        counts.ShouldBe(sizes.Select(size => (long)Math.Round(20 * size / sizes.Sum())));
    }

    [Fact]
    public void Faults_UnknownWavelet_NamesThoseThereAre() =>
        new WaveFtConfig { WaveletFamily = "coif5" }.Faults().ShouldHaveSingleItem().ErrorMessage!.ShouldContain("db10");

    public static TheoryData<AdapterConfig> OnWholeModels =>
    [
        new ShadowConfig { InitWeights = false }, new ShadowConfig { InitWeights = false, ShadowHiddenSize = 32, ShadowNumAttentionHeads = 4 },
        new WaveFtConfig { NFrequency = 64, WaveletFamily = "sym4", Scaling = 1, InitWeights = false, TargetModules = OneModule },
        new OftConfig { OftBlockSize = 4, InitWeights = false, TargetModules = ModuleSelector.Of("embed_tokens") },
        new HiraConfig { R = 4, InitWeights = InitChoice.Named("false"), TargetModules = ModuleSelector.Of("embed_tokens") },
    ];

    /// <summary>A server holds the weights of adapters in the type of the base.</summary>
    [Theory]
    [MemberData(nameof(OnWholeModels))]
    public void Forward_AllInBfloat16_StaysNearFloat32(AdapterConfig config)
    {
        using var scope = NewDisposeScope();
        using var frozen = no_grad();
        using var wide = RandomLlama.Create(CPU, ScalarType.Float32);
        using var narrow = RandomLlama.Create(CPU, ScalarType.BFloat16);
        using var exact = New(config, wide);
        using var rounded = New(config, narrow);
        foreach (var ((_, from), (_, to)) in exact.State.Zip(rounded.State))
        {
            to.Set(from.Value.to(ScalarType.BFloat16));
        }

        var (logits, near) = (Logits(wide, exact), Logits(narrow, rounded));

        near.to(ScalarType.Float32).Minus(logits).abs().max().item<float>().ShouldBeLessThan(0.05f * logits.abs().max().item<float>());
        logits.Minus(Logits(wide, null)).abs().max().item<float>().ShouldBeGreaterThan(0.01f * logits.abs().max().item<float>());

        static Tensor Logits(CausalLanguageModel model, Adapter? adapter)
        {
            using var batch = ForwardBatch.Packed([[3, 5, 7, 11, 13]], adapter is null ? [] : [adapter], CPU);
            return model.Logits(model.Hidden(batch), batch);
        }
    }

    private static Adapter New(AdapterConfig config, CausalLanguageModel model)
    {
        var adapter = config.CreateAdapter(model);
        adapter.Initialize(3);
        return adapter;
    }

    /// <summary>Blocks of four inputs that the adapter hands on as they are, for a unit vector at each place.</summary>
    private static List<int> Unturned(Adapter adapter, ulong? seed)
    {
        var site = (Projection)adapter.Parts.Single().Site;
        var moved = Call(adapter, eye(Width), seed).Minus(site.DenseWeight().t()).abs().amax([1]).view(-1, 4).amax([1]).data<float>().ToArray(); // [blocks]
        return [.. Enumerable.Range(0, moved.Length).Where(block => moved[block] < 1e-6f)];
    }

    /// <summary>What the part makes of three inputs, in training where there is a seed.</summary>
    private static Tensor Forward(Adapter adapter, ulong? seed)
    {
        using var inputs = new Generator(9);
        return Call(adapter, randn([3, Width], generator: inputs), seed);
    }

    private static Tensor Call(Adapter adapter, Tensor x, ulong? seed)
    {
        using var draws = seed is { } given ? new Generator(given) : null;
        using var batch = ForwardBatch.Packed([[3, 5, 7]], [adapter], CPU, draws);
        var (site, part) = adapter.Parts.Single();
        return part.Forward(x, new SiteCall(site, batch, batch.Runs[0], [], 0));
    }
}
