using System.Text.Json;
using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.Lora;
using PeftServer.Engine.Models;
using PeftServer.Engine.Native;

namespace PeftServer.Engine.Tests.Adapters;

/// <summary>A head that shares the embedding's table follows what adapters do to it.</summary>
public sealed class TiedHeadTests
{
    [Theory]
    [InlineData("""{ "peft_type": "LORA", "r": 2, "target_modules": ["embed_tokens"], "init_lora_weights": false, "ensure_weight_tying": true }""")]
    [InlineData("""{ "peft_type": "LORA", "r": 2, "target_modules": ["q_proj"], "init_lora_weights": false, "trainable_token_indices": [3, 5] }""")]
    [InlineData("""{ "peft_type": "TRAINABLE_TOKENS", "token_indices": [3, 5], "init_weights": false }""")]
    public void MergeAndUnload_TiedTable_ComputesWhatTheAdapterDid(string settings)
    {
        using var scope = NewDisposeScope();
        using var frozen = no_grad();
        using var model = TiedLlama();
        using var adapter = JsonSerializer.Deserialize<AdapterConfig>(settings, PeftJson.Options)!.CreateAdapter(model);
        adapter.Initialize(2);
        var (before, expected) = (Logits(model, []), Logits(model, [adapter]));

        adapter.MergeAndUnload();

        Distance(before, expected).ShouldBeGreaterThan(0.1f);
        Distance(Logits(model, []), expected).ShouldBeLessThan(1e-4f * expected.abs().max().item<float>());
    }

    [Fact]
    public void SaveAndLoad_TiedHead_HoldsTheEmbeddingsFactorsTwice()
    {
        using var scope = NewDisposeScope();
        using var model = TiedLlama();
        using var adapter = new LoraConfig { R = 2, TargetModules = ModuleSelector.Of("embed_tokens"), InitLoraWeights = LoraInit.Random, EnsureWeightTying = true }.CreateAdapter(model);
        adapter.Initialize(2);
        var folder = Directory.CreateTempSubdirectory("peftserver-tied-").FullName;

        AdapterFile.Save(adapter, folder, "tied-llama");
        using var loaded = AdapterFile.Load(folder, model);
        Directory.Delete(folder, recursive: true);

        adapter.State.Select(entry => entry.Key).ShouldContain("base_model.model.lm_head.lora_A.weight");
        adapter.TrainableCount.ShouldBe(2 * 2 * (64 + 128)); // the head has factors of its own in PEFT, over the same memory
        Distance(Logits(model, [loaded]), Logits(model, [adapter])).ShouldBeLessThan(1e-6f);
    }

    private static LlamaForCausalLM TiedLlama()
    {
        var model = (LlamaForCausalLM)PretrainedModel.Plan(PretrainedConfig.Parse("""
            {
              "model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 96, "num_hidden_layers": 2, "vocab_size": 128,
              "rms_norm_eps": 1e-6, "max_position_embeddings": 64, "tie_word_embeddings": true
            }
            """));
        using var scope = NewDisposeScope();
        using var generator = new Generator(1);
        foreach (var weight in model.Weights())
        {
            weight.Set(weight.Shape.Count == 1 ? ones(weight.Shape[0]) : randn(weight.Shape.ToArray(), generator: generator).Times(0.15));
        }

        return model;
    }

    private static Tensor Logits(CausalLanguageModel model, IReadOnlyList<Adapter> adapters)
    {
        using var frozen = no_grad();
        using var batch = ForwardBatch.Packed([[3, 5, 7, 11, 13]], adapters, CPU);
        return model.Logits(model.Hidden(batch), batch);
    }

    private static float Distance(Tensor a, Tensor b) => a.Minus(b).abs().max().item<float>();
}
