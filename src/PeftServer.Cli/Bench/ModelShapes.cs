using System.Text.Json.Nodes;
using PeftServer.Engine.Models;
using PeftServer.Engine.Quantization;
using TorchSharp;
using static TorchSharp.torch;

namespace PeftServer.Cli.Bench;

/// <summary>Models by family and size, as their makers published the sizes, with random weights: speed does not ask what they say.</summary>
internal static class ModelShapes
{
    /// <summary>Tokens of the Llamas.</summary>
    public const int LlamaVocabulary = 128_256;

    private const string Llama = """
        "model_type": "llama", "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256, "rope_theta": 500000.0, "rms_norm_eps": 1e-6
        """;

    private const string Gemma2 = """
        "model_type": "gemma2", "head_dim": 256, "query_pre_attn_scalar": 256, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0,
        "sliding_window": 4096, "vocab_size": 256000, "rope_theta": 10000.0, "rms_norm_eps": 1e-6
        """;

    private static readonly Dictionary<string, string> Shapes = new()
    {
        ["1b"] = $"""{Llama}, "hidden_size": 2048, "num_hidden_layers": 16, "head_dim": 64, "intermediate_size": 8192, "tie_word_embeddings": true""",
        ["8b"] = $"""{Llama}, "hidden_size": 4096, "num_hidden_layers": 32, "head_dim": 128, "intermediate_size": 14336, "tie_word_embeddings": false""",
        ["gemma-2b"] = """
            "model_type": "gemma", "hidden_size": 2048, "num_hidden_layers": 18, "num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 256,
            "intermediate_size": 16384, "vocab_size": 256000, "hidden_act": "gelu_pytorch_tanh", "rope_theta": 10000.0, "rms_norm_eps": 1e-6
            """,
        ["gemma2-2b"] = $"""{Gemma2}, "hidden_size": 2304, "num_hidden_layers": 26, "num_attention_heads": 8, "num_key_value_heads": 4, "intermediate_size": 9216""",
        ["gemma3-1b"] = """
            "model_type": "gemma3_text", "hidden_size": 1152, "num_hidden_layers": 26, "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256,
            "intermediate_size": 6912, "vocab_size": 262144, "query_pre_attn_scalar": 256, "sliding_window": 512, "sliding_window_pattern": 6,
            "rope_theta": 1000000.0, "rope_local_base_freq": 10000.0, "rms_norm_eps": 1e-6
            """,
        ["granite-2b"] = """
            "model_type": "granite", "hidden_size": 2048, "num_hidden_layers": 40, "num_attention_heads": 32, "num_key_value_heads": 8,
            "intermediate_size": 8192, "vocab_size": 49155, "attention_multiplier": 0.015625, "embedding_multiplier": 12.0,
            "residual_multiplier": 0.22, "logits_scaling": 8.0, "rope_theta": 5000000.0, "rms_norm_eps": 1e-5, "tie_word_embeddings": true
            """,
        ["olmo2-1b"] = """
            "model_type": "olmo2", "hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 16, "num_key_value_heads": 16,
            "intermediate_size": 8192, "vocab_size": 100352, "rope_theta": 500000.0, "rms_norm_eps": 1e-6, "tie_word_embeddings": false
            """,
        ["qwen3-30b-a3b"] = """
            "model_type": "qwen3_moe", "hidden_size": 2048, "num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128,
            "intermediate_size": 6144, "moe_intermediate_size": 768, "num_experts": 128, "num_experts_per_tok": 8, "norm_topk_prob": true,
            "vocab_size": 151936, "rope_theta": 1000000.0, "rms_norm_eps": 1e-6, "tie_word_embeddings": false
            """,
        ["starcoder2-3b"] = """
            "model_type": "starcoder2", "hidden_size": 3072, "num_hidden_layers": 30, "num_attention_heads": 24, "num_key_value_heads": 2,
            "intermediate_size": 12288, "vocab_size": 49152, "sliding_window": 4096, "rope_theta": 999999.4420358813, "norm_epsilon": 1e-5,
            "tie_word_embeddings": true
            """,
        ["phi-2"] = """
            "model_type": "phi", "hidden_size": 2560, "num_hidden_layers": 32, "num_attention_heads": 32, "intermediate_size": 10240, "vocab_size": 51200,
            "partial_rotary_factor": 0.4, "layer_norm_eps": 1e-5, "tie_word_embeddings": false
            """,
        ["stablelm-1.6b"] = """
            "model_type": "stablelm", "hidden_size": 2048, "num_hidden_layers": 24, "num_attention_heads": 32, "num_key_value_heads": 32,
            "intermediate_size": 5632, "vocab_size": 100352, "partial_rotary_factor": 0.25, "use_qkv_bias": true, "layer_norm_eps": 1e-5,
            "tie_word_embeddings": false
            """,
        ["pythia-1.4b"] = """
            "model_type": "gpt_neox", "hidden_size": 2048, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 8192, "vocab_size": 50304,
            "rotary_pct": 0.25, "layer_norm_eps": 1e-5, "tie_word_embeddings": false
            """,
        ["aya-8b"] = """
            "model_type": "cohere", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
            "intermediate_size": 14336, "vocab_size": 256000, "logit_scale": 0.0625, "rope_theta": 10000.0, "layer_norm_eps": 1e-5, "tie_word_embeddings": true
            """,
    };

    public static IReadOnlyCollection<string> Names => Shapes.Keys;

    /// <summary>The shape <paramref name="name"/> without weights, with all of its blocks or so many.</summary>
    public static CausalLanguageModel Plan(string name, int? blocks = null)
    {
        var fields = JsonNode.Parse($$"""{ {{Shapes[name]}}, "max_position_embeddings": 131072 }""")!.AsObject();
        fields["num_hidden_layers"] = blocks ?? fields["num_hidden_layers"]!.GetValue<int>();
        return (CausalLanguageModel)PretrainedModel.Plan(PretrainedConfig.Parse(fields.ToJsonString()));
    }

    /// <summary>The same with random weights.</summary>
    public static CausalLanguageModel Create(
        string name, Device device, ScalarType dtype, BaseQuantization quantization = BaseQuantization.None, int? blocks = null)
    {
        var model = Plan(name, blocks);
        using var frozen = no_grad();
        using var spread = 0.02.ToScalar();
        var packable = model.PackableWeights(quantization);
        foreach (var weight in model.Weights())
        {
            using var scope = NewDisposeScope();
            var shape = weight.Shape.ToArray();
            var drawn = shape.Length == 1 ? ones(shape, dtype: dtype, device: device) : randn(shape, dtype: dtype, device: device).mul_(spread);
            if (!packable.Contains(weight))
            {
                weight.Set(drawn.alias());
            }
            else
            {
                weight.Set(PackedMatrix.Pack(drawn, quantization));
            }
        }

        return model;
    }
}
