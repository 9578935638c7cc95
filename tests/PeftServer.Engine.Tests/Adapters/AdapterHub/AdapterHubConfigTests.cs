using System.Text.Json;
using System.Text.Json.Nodes;
using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.AdapterHub;
using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Tests.Adapters.AdapterHub;

public sealed class AdapterHubConfigTests
{
    [Theory]
    [InlineData("seq_bn", "reduction_factor", "16")]
    [InlineData("pfeiffer", "original_ln_before", "true")]
    [InlineData("houlsby", "non_linearity", "\"swish\"")]
    [InlineData("par_bn", "scaling", "4.0")]
    [InlineData("scaled_parallel", "scaling", "\"learned\"")]
    [InlineData("seq_bn[reduction_factor=2.5]", "reduction_factor", "2.5")]
    [InlineData("seq_bn[reduction_factor={'0': 8, 'default': 2}]", "reduction_factor", "{\"0\":8,\"default\":2}")]
    [InlineData("seq_bn[scaling=4, ln_after=True]", "scaling", "4.0")]
    [InlineData("seq_bn[non_linearity='gelu']", "non_linearity", "\"gelu\"")]
    [InlineData("lora[attn_matrices=['q', 'k', 'v'], r=2]", "attn_matrices", "[\"q\",\"k\",\"v\"]")]
    [InlineData("houlsby+inv", "inv_adapter", "\"nice\"")]
    public void Complete_ShortName_IsTheLibrarysConfig(string name, string field, string value) =>
        HubNames.Complete(JsonValue.Create(name))[field]!.ToJsonString().ShouldBe(value);

    [Fact]
    public void Complete_SeveralNames_IsAUnion()
    {
        var union = HubNames.Complete(JsonValue.Create("prefix_tuning[prefix_length=5]|seq_bn[reduction_factor=4]"));

        ((string)union["architecture"]!).ShouldBe("union");
        union["configs"]!.AsArray().Select(part => (string?)part!["architecture"]).ShouldBe(["prefix_tuning", null]);
        ((int)union["configs"]![0]!["prefix_length"]!).ShouldBe(5);
    }

    [Theory]
    [InlineData("\"seq_bn[reduction=4]\"", "reduction: 'seq_bn' has no such field")]
    [InlineData("\"sequential\"", "Known: seq_bn")]
    [InlineData("\"seq_bn[scaling='big']\"", "scaling: is \"big\"")]
    [InlineData("\"seq_bn[reduction_factor=0]\"", "reduction_factor: must be a number above 0")]
    [InlineData("\"seq_bn_inv[inv_adapter='glow']\"", "inv_adapter: 'glow' is not supported: the library's GLOW block")]
    [InlineData("\"seq_bn[non_linearity='gleu']\"", "non_linearity: 'gleu' is unknown")]
    [InlineData("\"ia3[r=2]\"", "r: must be 1")]
    [InlineData("\"lora[attn_matrices=['o']]\"", "attn_matrices: 'o' is unknown")]
    [InlineData("\"loreft[prefix_positions=0]\"", "prefix_positions")]
    [InlineData("{ \"mh_adapter\": true }", "output_adapter: is missing")]
    [InlineData("{ \"architecture\": \"mtl_lora\" }", "architecture: 'mtl_lora' is not supported")]
    [InlineData("{ \"architecture\": \"lora\", \"rank\": 4 }", "rank")]
    [InlineData("7", "config: must be an object")]
    public void Faults_WrongConfig_NamesFieldAndRemedy(string config, string expected)
    {
        var peft = JsonSerializer.Deserialize<AdapterConfig>($$"""{ "peft_type": "ADAPTERS", "config": {{config}} }""", PeftJson.Options)!;

        peft.Faults().Select(fault => fault.ErrorMessage).ShouldHaveSingleItem()!.ShouldContain(expected);
    }

    [Fact]
    public void Faults_NameThatIsNoKey_NamesIt() =>
        new AdapterHubConfig { Name = "a.b" }.Faults().ShouldHaveSingleItem().ErrorMessage!.ShouldStartWith("name");

    [Fact]
    public void ReadConfig_OldFile_MeansWhatItMeant()
    {
        static JsonObject Config(string config, string? version) => new()
        {
            ["config"] = HubNames.Complete(JsonValue.Create(config)),
            ["model_type"] = "bert",
            ["name"] = "task",
            ["version"] = version,
        };

        static JsonObject Read(JsonObject fields) => (JsonObject)AdapterHubFile.ReadConfig(fields).Config!;

        ((string)Read(Config("seq_bn[non_linearity='gelu']", null))["non_linearity"]!).ShouldBe("gelu_new");
        ((string)Read(Config("seq_bn[non_linearity='gelu']", "adapters.1.3.0"))["non_linearity"]!).ShouldBe("gelu");
        ((int)Read(Config("lora[r=4, alpha=16]", "adapters.1.0.0"))["alpha"]!).ShouldBe(4);
        ((int)Read(Config("lora[r=4, alpha=16]", "adapters.1.1.0"))["alpha"]!).ShouldBe(16);
    }

    [Fact]
    public void ReadConfig_UnknownFieldOfAFile_PassesOnlyWhereItSaysNothing()
    {
        var config = HubNames.Complete(JsonValue.Create("seq_bn"));
        config["new_feature"] = false;
        var fields = new JsonObject { ["config"] = config, ["model_type"] = "bert", ["name"] = "task" };

        AdapterHubFile.ReadConfig(fields).Name.ShouldBe("task");

        config["new_feature"] = 3;
        Should.Throw<CheckpointException>(() => AdapterHubFile.ReadConfig(fields)).Message.ShouldContain("new_feature");
    }

    [Fact]
    public void Written_WhatTheLibraryForgets_IsThere()
    {
        HubNames.Written(HubNames.Complete(JsonValue.Create("direft"))).ContainsKey("subtract_projection").ShouldBeTrue();
        HubNames.Written(HubNames.Complete(JsonValue.Create("noreft"))).ContainsKey("subtract_projection").ShouldBeFalse();
        HubNames.Written(HubNames.Complete(JsonValue.Create("prompt_tuning[random_uniform_scale=0.25]"))).ContainsKey("random_uniform_scale").ShouldBeTrue();
    }

    [Fact]
    public void Create_OnAnUnknownArchitecture_SaysWhereItFits()
    {
        var config = PretrainedConfig.Parse(
            """{ "model_type": "gemma2", "architectures": ["Gemma2ForCausalLM"], "vocab_size": 32, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8 }""");
        var model = PretrainedModel.Plan(config);

        Should.Throw<AdapterException>(() => new AdapterHubConfig().CreateAdapter(model)).Message.ShouldContain("ADAPTERS does not know gemma2");
    }

    [Theory]
    [InlineData("seq_bn[residual_before_ln='post_add']", "residual_before_ln: \"post_add\" is for models with a norm behind")]
    [InlineData("seq_bn[leave_out=[0, 1]]", "config: puts nothing onto llama")]
    [InlineData("compacter[reduction_factor=32]", "phm_dim: = 4 must divide")]
    [InlineData("vera", "vera_d: model.layers.0.self_attn.v_proj")]
    [InlineData("loreft[r=64]", "r: = 64 must be below")]
    [InlineData("seq_bn[reduction_factor={'0': 2}]", "reduction_factor: says nothing about layer 1")]
    public void Create_WhatTheModelCannotHave_NamesTheField(string config, string expected)
    {
        using var model = RandomLlama.Create(CPU, ScalarType.Float32);

        Should.Throw<AdapterException>(() => new AdapterHubConfig { Config = config }.CreateAdapter(model)).Message.ShouldContain(expected);
    }

    /// <summary>On a GPU an adapter is served in the type of its base.</summary>
    [Theory]
    [InlineData("seq_bn[ln_before=True, ln_after=True, scaling='channel', use_gating=True]")]
    [InlineData("compacter[reduction_factor=4]")]
    [InlineData("seq_bn_inv")]
    [InlineData("lora[use_gating=True]")]
    [InlineData("ia3")]
    [InlineData("dora")]
    [InlineData("vera[attn_matrices=['q']]")]
    [InlineData("prefix_tuning[prefix_length=2, bottleneck_size=4, use_gating=True]")]
    [InlineData("prompt_tuning")]
    [InlineData("loreft[suffix_positions=1]")]
    public void Forward_WeightsInBfloat16_GivesNumbers(string config)
    {
        using var scope = NewDisposeScope();
        using var frozen = no_grad();
        using var model = RandomLlama.Create(CPU, ScalarType.BFloat16);
        using var adapter = new AdapterHubConfig { Config = config }.CreateAdapter(model);
        adapter.Initialize(1);
        foreach (var (_, weight) in adapter.State)
        {
            weight.Set(weight.Value.to(ScalarType.BFloat16));
        }

        using var batch = ForwardBatch.Packed([[3, 5, 7, 11]], [adapter], CPU);
        model.Logits(model.Hidden(batch), batch).isfinite().all().item<bool>().ShouldBeTrue();
    }

    [Fact]
    public void Save_LoreftAfterWeightDecay_ReloadsAsItWas()
    {
        using var scope = NewDisposeScope();
        using var frozen = no_grad();
        using var model = RandomLlama.Create(CPU, ScalarType.Float32);
        using var adapter = (HubAdapter)new AdapterHubConfig { Config = "loreft[r=2]" }.CreateAdapter(model);
        adapter.Initialize(1);
        foreach (var (key, weight) in adapter.State.Where(entry => entry.Key.EndsWith("original", StringComparison.Ordinal)))
        {
            weight.Value.mul_(0.9f.ToScalar()); // what decay does to the signs
        }

        var folder = Directory.CreateTempSubdirectory("peftserver-hub-").FullName;
        try
        {
            AdapterFile.Save(adapter, folder, "random-llama");
            using var again = (HubAdapter)AdapterFile.Load(folder, model);

            var saved = again.State.First(entry => entry.Key.EndsWith("original", StringComparison.Ordinal)).Weight.Value;
            saved.diagonal().data<float>().ToArray().ShouldBe([-1f, -1f]);
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }
}
