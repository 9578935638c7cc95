using PeftServer.Engine.Models;
using PeftServer.Engine.Quantization;
using TorchSharp;
using static TorchSharp.torch;

namespace PeftServer.Cli.Bench;

/// <summary>Llamas by size, with random weights: speed does not ask what they say.</summary>
internal static class LlamaShapes
{
    public const int Vocabulary = 128_256;

    private static readonly Dictionary<string, (int Hidden, int Layers, int HeadDim, int Intermediate, bool Tied)> Shapes = new()
    {
        ["1b"] = (2048, 16, 64, 8192, true),
        ["8b"] = (4096, 32, 128, 14336, false),
    };

    public static IReadOnlyCollection<string> Names => Shapes.Keys;

    /// <summary>The shape <paramref name="name"/>, with all of its blocks or so many.</summary>
    public static LlamaForCausalLM Create(
        string name, Device device, ScalarType dtype, BaseQuantization quantization = BaseQuantization.None, int? blocks = null)
    {
        var (hidden, layers, headDim, intermediate, tied) = Shapes[name];
        layers = blocks ?? layers;
        var model = (LlamaForCausalLM)PretrainedModel.Plan(PretrainedConfig.Parse($$"""
            {
              "model_type": "llama", "hidden_size": {{hidden}}, "num_hidden_layers": {{layers}}, "num_attention_heads": 32, "num_key_value_heads": 8,
              "head_dim": {{headDim}}, "intermediate_size": {{intermediate}}, "vocab_size": {{Vocabulary}}, "max_position_embeddings": 131072,
              "rope_theta": 500000.0, "rms_norm_eps": 1e-6, "tie_word_embeddings": {{(tied ? "true" : "false")}}
            }
            """));
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
