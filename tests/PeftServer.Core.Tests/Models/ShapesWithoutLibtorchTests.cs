using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.Lora;
using PeftServer.Engine.Models;

namespace PeftServer.Core.Tests.Models;

/// <summary>What api and worker may do with models: this test process, like theirs, never loads libtorch.</summary>
public sealed class ShapesWithoutLibtorchTests
{
    private const string LlamaSizes = """
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "vocab_size": 96, "max_position_embeddings": 64
        """;

    /// <summary>A config has the fields of its own architecture; one that nobody reads is refused.</summary>
    [Theory]
    [InlineData("llama", LlamaSizes)]
    [InlineData("gemma2", LlamaSizes + """, "num_key_value_heads": 4, "head_dim": 8, "sliding_window": 8, "query_pre_attn_scalar": 8""")]
    [InlineData("gpt2", """ "n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 96, "n_positions": 64""")]
    [InlineData("opt", """ "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 64, "vocab_size": 96, "max_position_embeddings": 64, "word_embed_proj_dim": 32""")]
    [InlineData("granite", LlamaSizes + """, "embedding_multiplier": 12.0, "residual_multiplier": 0.2, "attention_multiplier": 0.1, "logits_scaling": 8.0""")]
    [InlineData("roberta", LlamaSizes + """, "type_vocab_size": 2""")]
    public void Plan_WithLora_CountsAndLoadsNoLibtorch(string modelType, string fields)
    {
        var architecture = modelType == "roberta" ? "RobertaForSequenceClassification" : "XForCausalLM";
        var model = PretrainedModel.Plan(PretrainedConfig.Parse($$"""{ "model_type": "{{modelType}}", "architectures": ["{{architecture}}"], {{fields}} }"""));

        var adapter = new LoraConfig { R = 4, TargetModules = ModuleSelector.AllLinear }.CreateAdapter(model);

        adapter.TrainableCount.ShouldBeGreaterThan(0);
        File.ReadAllText("/proc/self/maps").ShouldNotContain("libtorch");
    }
}
