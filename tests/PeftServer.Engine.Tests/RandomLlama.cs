using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Quantization;

namespace PeftServer.Engine.Tests;

/// <summary>A small Llama with random weights, made in milliseconds.</summary>
internal static class RandomLlama
{
    public static LlamaForCausalLM Create(
        Device device, ScalarType dtype, int hidden = 64, int heads = 4, int groups = 2, int headDim = 16, int intermediate = 96, int layers = 2, int vocabulary = 128, ulong seed = 1,
        BaseQuantization quantization = BaseQuantization.None) =>
        (LlamaForCausalLM)Relative("llama", "", device, dtype, hidden, heads, groups, headDim, intermediate, layers, vocabulary, seed, quantization);

    /// <summary>A relative of Llama, near or far, by its <paramref name="modelType"/>, with <paramref name="fields"/> of its own (<c>"name": value,</c>).</summary>
    public static CausalLanguageModel Relative(
        string modelType, string fields, Device device, ScalarType dtype, int hidden = 64, int heads = 4, int groups = 2, int headDim = 16, int intermediate = 96, int layers = 2,
        int vocabulary = 128, ulong seed = 1, BaseQuantization quantization = BaseQuantization.None)
    {
        var shape = modelType switch // by the names of each family; those without groups have heads of hidden / heads
        {
            "gpt2" or "gptj" => $""" "n_embd": {hidden}, "n_head": {heads}, "n_layer": {layers}, "n_inner": {intermediate}, "n_positions": 4096 """,
            "opt" => $""" "hidden_size": {hidden}, "num_attention_heads": {heads}, "num_hidden_layers": {layers}, "ffn_dim": {intermediate}, "max_position_embeddings": 4096 """,
            "falcon" => $""" "hidden_size": {hidden}, "num_attention_heads": {heads}, "num_hidden_layers": {layers}, "ffn_hidden_size": {intermediate} """,
            "gpt_neox" => $""" "hidden_size": {hidden}, "num_attention_heads": {heads}, "num_hidden_layers": {layers}, "intermediate_size": {intermediate} """,
            "bloom" => $""" "hidden_size": {hidden}, "n_head": {heads}, "n_layer": {layers} """,
            _ => $"""
                "hidden_size": {hidden}, "num_attention_heads": {heads}, "num_key_value_heads": {groups}, "head_dim": {headDim}, "num_hidden_layers": {layers},
                "intermediate_size": {intermediate}, "rms_norm_eps": 1e-6, "max_position_embeddings": 4096
                """,
        };
        var model = (CausalLanguageModel)PretrainedModel.Plan(PretrainedConfig.Parse($$"""
            { "model_type": "{{modelType}}", {{fields}} {{shape}}, "vocab_size": {{vocabulary}} }
            """));
        using var scope = NewDisposeScope();
        using var generator = new Generator(seed);
        using var spread = 0.15.ToScalar();
        var packable = model.PackableWeights(quantization);
        foreach (var weight in model.Weights())
        {
            var drawn = randn(weight.Shape.ToArray(), generator: generator).mul(spread);
            if (weight.Shape.Count == 1)
            {
                drawn = drawn.add(TensorArithmetic.One); // norms near one
            }

            drawn = drawn.to(dtype, device);
            if (packable.Contains(weight))
            {
                weight.Set(PackedMatrix.Pack(drawn, quantization));
            }
            else
            {
                weight.Set(drawn);
            }
        }

        return model;
    }
}
