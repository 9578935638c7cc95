using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.Lora;
using PeftServer.Engine.Models;

namespace PeftServer.Core.Tests.Models;

/// <summary>What api and worker may do with models: this test process, like theirs, never loads libtorch.</summary>
public sealed class ShapesWithoutLibtorchTests
{
    [Theory]
    [InlineData("llama")]
    [InlineData("gemma2")]
    [InlineData("gpt2")]
    [InlineData("opt")]
    [InlineData("granite")]
    [InlineData("roberta")]
    public void Plan_WithLora_CountsAndLoadsNoLibtorch(string modelType)
    {
        var model = PretrainedModel.Plan(PretrainedConfig.Parse($$"""
            {
              "model_type": "{{modelType}}", "architectures": ["{{(modelType == "roberta" ? "RobertaForSequenceClassification" : "XForCausalLM")}}"], "hidden_size": 32, "n_embd": 32,
              "num_hidden_layers": 2, "n_layer": 2, "num_attention_heads": 4, "n_head": 4, "num_key_value_heads": 4, "head_dim": 8, "intermediate_size": 64, "ffn_dim": 64,
              "vocab_size": 96, "max_position_embeddings": 64, "n_positions": 64, "word_embed_proj_dim": 32, "type_vocab_size": 2, "sliding_window": 8,
              "query_pre_attn_scalar": 8, "embedding_multiplier": 12.0, "residual_multiplier": 0.2, "attention_multiplier": 0.1, "logits_scaling": 8.0
            }
            """));

        var adapter = new LoraConfig { R = 4, TargetModules = ModuleSelector.AllLinear }.CreateAdapter(model);

        adapter.TrainableCount.ShouldBeGreaterThan(0);
        File.ReadAllText("/proc/self/maps").ShouldNotContain("libtorch");
    }
}
