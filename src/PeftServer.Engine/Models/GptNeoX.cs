using PeftServer.Engine.Native;

namespace PeftServer.Engine.Models;

/// <summary>GPT-NeoX and Pythia: one projection for q, k and v, head by head; a quarter of each head turns. <see href="https://arxiv.org/abs/2204.06745"/>.</summary>
internal sealed class GptNeoXModel : Decoder
{
    public readonly Embedding embed_in;
    public readonly IReadOnlyList<GptNeoXLayer> layers;
    public readonly LayerNorm final_layer_norm;

    public GptNeoXModel(PretrainedConfig config)
    {
        var hidden = config.Int("hidden_size");
        embed_in = new Embedding(config.VocabSize, hidden);
        layers = [.. Enumerable.Range(0, config.Int("num_hidden_layers")).Select(index => new GptNeoXLayer(config, index))];
        final_layer_norm = new LayerNorm(hidden, config.Number("layer_norm_eps", 1e-5));
        Rotary = new RotaryEmbedding(
            config, RotaryEmbedding.TurningDimensions(config, hidden / config.Int("num_attention_heads"), 0.25), oldTheta: config.Has("rotary_emb_base") ? "rotary_emb_base" : "rope_theta");
    }

    public RotaryEmbedding Rotary { get; }

    public override Embedding TokenEmbedding => embed_in;

    public override int LayerCount => layers.Count;

    public override Tensor Forward(ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        var x = embed_in.Forward(batch.Ids, batch); // [n, hidden]
        var angle = Rotary.At(batch, x.dtype);
        foreach (var layer in layers)
        {
            x = GradientCheckpoints.Layer(x, batch, h => layer.Forward(h, angle, batch), angle.Cos, angle.Sin);
        }

        return final_layer_norm.Forward(x, batch).MoveToOuterDisposeScope();
    }
}

internal sealed class GptNeoXLayer(PretrainedConfig config, int index) : Module
{
    public readonly LayerNorm input_layernorm = new(config.Int("hidden_size"), config.Number("layer_norm_eps", 1e-5));
    public readonly LayerNorm post_attention_layernorm = new(config.Int("hidden_size"), config.Number("layer_norm_eps", 1e-5));
    public readonly GptNeoXAttention attention = new(config, index);
    public readonly FourHMlp mlp = new(config.Int("hidden_size"), config.Int("intermediate_size"), true, Activation.Of(config, "hidden_act", "gelu"));

    /// <summary>Attention and feed-forward read the same stream.</summary>
    public bool IsParallel { get; } = config.Flag("use_parallel_residual", true);

    public Tensor Forward(Tensor x, (Tensor Cos, Tensor Sin) angle, ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        var attended = x.Plus(attention.Forward(input_layernorm.Forward(x, batch), angle, batch));
        return attended.Plus(mlp.Forward(post_attention_layernorm.Forward(IsParallel ? x : attended, batch), batch)).MoveToOuterDisposeScope();
    }
}

internal sealed class GptNeoXAttention(PretrainedConfig config, int index) : Module
{
    public readonly Linear query_key_value = new(config.Int("hidden_size"), 3 * config.Int("hidden_size"), config.Flag("attention_bias", true));
    public readonly Linear dense = new(config.Int("hidden_size"), config.Int("hidden_size"), config.Flag("attention_bias", true));

    public int Heads { get; } = config.Int("num_attention_heads");

    public int HeadDim { get; } = config.Int("hidden_size") / config.Int("num_attention_heads");

    public Tensor Forward(Tensor x, (Tensor Cos, Tensor Sin) angle, ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        var parts = query_key_value.Forward(x, batch).view(-1, Heads, 3, HeadDim).unbind(2); // [n, H, D]
        var (q, k) = (RotaryEmbedding.Rotate(parts[0], angle), RotaryEmbedding.Rotate(parts[1], angle));
        var y = batch.Attention.Attend(index, q, k, parts[2], new AttentionOptions(1 / Math.Sqrt(HeadDim)));
        return dense.Forward(y.reshape(-1, Heads * HeadDim), batch).MoveToOuterDisposeScope();
    }
}

/// <summary>The feed-forward part of GPT-NeoX, BLOOM and Falcon.</summary>
internal sealed class FourHMlp(int hidden, int intermediate, bool hasBias, Func<Tensor, Tensor> act) : Module
{
    public readonly Linear dense_h_to_4h = new(hidden, intermediate, hasBias);
    public readonly Linear dense_4h_to_h = new(intermediate, hidden, hasBias);

    public Func<Tensor, Tensor> Act { get; } = act;

    public Tensor Forward(Tensor x, ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        return dense_4h_to_h.Forward(Act(dense_h_to_4h.Forward(x, batch)), batch).MoveToOuterDisposeScope();
    }
}
