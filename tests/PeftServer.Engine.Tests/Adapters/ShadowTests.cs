using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.Shadow;
using PeftServer.Engine.Data;
using PeftServer.Engine.Training;

namespace PeftServer.Engine.Tests.Adapters;

/// <summary>The network beside a base: what it is made of, where it stands, and what its own scores count.</summary>
public sealed class ShadowTests
{
    [Fact]
    public void Loss_AuxiliaryWeight_CountsTheShadowsOwnScores()
    {
        using var scope = NewDisposeScope();
        using var frozen = no_grad();
        using var model = RandomLlama.Create(CPU, ScalarType.Float32);
        int[] ids = [3, 5, 7, 11, 13, 17];
        double Loss(double weight)
        {
            using var adapter = new ShadowConfig { AuxiliaryLossWeight = weight }.CreateAdapter(model);
            adapter.Initialize(3);
            return SftLoss.Compute(model, [adapter], SftBatch.Of([new TrainingRow(ids, [.. ids.Select(_ => true)], 1)]), null).Sum.item<float>();
        }

        var (without, half, whole) = (Loss(0), Loss(0.5), Loss(1));

        (whole - without).ShouldBeInRange(5 * Math.Log(128) * 0.5, 5 * Math.Log(128) * 2); // five tokens, near to chance
        (half - without).ShouldBe((whole - without) / 2, 1e-4);
    }

    [Fact]
    public void State_SharedAndOwnEmbeddings_HoldTheTableOnlyWhereItIsItsOwn()
    {
        using var model = RandomLlama.Create(CPU, ScalarType.Float32);
        using var shared = new ShadowConfig().CreateAdapter(model);
        using var own = new ShadowConfig { ShareEmbeddings = false, ShadowNumHiddenLayers = 2 }.CreateAdapter(model);
        using var narrow = new ShadowConfig { ShadowIntermediateSize = 24, ShadowHiddenSize = 32, ShadowNumAttentionHeads = 4 }.CreateAdapter(model);

        Keys(shared).ShouldNotContain(key => key.Contains("embed_tokens") || key.Contains("shadow_projection"));
        Keys(shared).ShouldNotContain(key => key.Contains("shadow_backbone.default.layers.1."));
        Keys(own).ShouldContain("base_model.shadow_backbone.default.embed_tokens.weight");
        Keys(own).ShouldContain("base_model.shadow_backbone.default.layers.1.mlp.up_proj.weight");
        narrow.State.Single(entry => entry.Key == "base_model.shadow_projection.default.weight").Weight.Shape.ShouldBe([64, 32]);
        narrow.State.Single(entry => entry.Key == "base_model.shadow_backbone.default.embed_tokens.weight").Weight.Shape[1].ShouldBe(32);

        static List<string> Keys(Adapter adapter) => [.. adapter.State.Select(entry => entry.Key)];
    }

    [Theory]
    [InlineData("model.layers.5", "No block")]
    [InlineData("model.layers.0", null)]
    public void CreateAdapter_Blocks_AreThoseThatAreMeant(string name, string? fault)
    {
        using var model = RandomLlama.Create(CPU, ScalarType.Float32);
        var config = new ShadowConfig { TargetModules = ModuleSelector.Of(name) };
        if (fault is not null)
        {
            Should.Throw<AdapterException>(() => config.CreateAdapter(model)).Message.ShouldContain(fault);
            return;
        }

        using var adapter = config.CreateAdapter(model);
        adapter.State.Count(entry => entry.Key.EndsWith("shadow_down.default.weight", StringComparison.Ordinal)).ShouldBe(1);
    }

    [Fact]
    public void Faults_ShadowModelOfItsOwn_IsAnError() =>
        new ShadowConfig { ShadowModel = "some/model" }.Faults().ShouldHaveSingleItem().MemberNames.ShouldBe(["ShadowModel"]);
}
