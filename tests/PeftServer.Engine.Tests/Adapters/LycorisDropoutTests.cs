using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.Loha;
using PeftServer.Engine.Adapters.Lokr;
using PeftServer.Engine.Models;
using PeftServer.Engine.Native;

namespace PeftServer.Engine.Tests.Adapters;

/// <summary>What LoHa and LoKr drop in training, and only there.</summary>
public sealed class LycorisDropoutTests
{
    private static LohaConfig Loha => new() { R = 4, InitWeights = false, TargetModules = ModuleSelector.Of("v_proj"), LayersToTransform = new([0], false) };

    private static LokrConfig Lokr => new() { R = 2, InitWeights = InitChoice.Named("false"), TargetModules = ModuleSelector.Of("v_proj"), LayersToTransform = new([0], false) };

    public static TheoryData<TargetedConfig, bool> RankDropouts => new()
    {
        { Loha with { RankDropout = 0.5 }, true }, { Lokr with { RankDropout = 0.5 }, false }, { Lokr with { RankDropout = 0.5, RankDropoutScale = true }, true },
    };

    [Theory]
    [MemberData(nameof(RankDropouts))]
    public void Delta_RankDropout_DropsWholeOutputsInTrainingAlone(TargetedConfig config, bool scales)
    {
        using var scope = NewDisposeScope();
        using var frozen = no_grad();
        using var model = RandomLlama.Create(CPU, ScalarType.Float32);
        using var adapter = config.CreateAdapter(model);
        adapter.Initialize(3);

        var whole = Delta(adapter, null);
        var dropped = Delta(adapter, 5);

        var kept = dropped.ne(TensorArithmetic.Zero).any(0).to(ScalarType.Float32); // [out]
        var share = kept.mean().item<float>();
        share.ShouldBeInRange(0.2f, 0.8f);
        dropped.Minus(whole.mul(kept).Times(scales ? 1 / share : 1)).abs().max().item<float>().ShouldBeLessThan(1e-5f);
        Delta(adapter, null).Minus(whole).abs().max().item<float>().ShouldBe(0);
    }

    [Fact]
    public void Delta_ModuleDropout_LeavesTheModuleOutNowAndThen()
    {
        using var scope = NewDisposeScope();
        using var frozen = no_grad();
        using var model = RandomLlama.Create(CPU, ScalarType.Float32);
        using var adapter = (Loha with { ModuleDropout = 0.5 }).CreateAdapter(model);
        adapter.Initialize(3);
        var whole = Delta(adapter, null).abs().max().item<float>();

        var sizes = Enumerable.Range(0, 40).Select(seed => Delta(adapter, (ulong)seed).abs().max().item<float>()).ToList();

        sizes.Count(size => size == 0).ShouldBeInRange(8, 32);
        sizes.Where(size => size != 0).ShouldAllBe(size => size == whole);
    }

    /// <summary>What the part adds to three inputs, in training where there is a seed.</summary>
    private static Tensor Delta(Adapter adapter, ulong? seed)
    {
        using var draws = seed is { } given ? new Generator(given) : null;
        using var inputs = new Generator(9);
        using var batch = ForwardBatch.Packed([[3, 5, 7]], [adapter], CPU, draws);
        var (site, part) = adapter.Parts.Single();
        return ((AdditiveSiteAdapter)part).Delta(randn([3, 64], generator: inputs), new SiteCall(site, batch, batch.Runs[0], [], 0));
    }
}
