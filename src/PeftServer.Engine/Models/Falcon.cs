using PeftServer.Engine.Native;

namespace PeftServer.Engine.Models;

/// <summary>Falcon, old layout (7b: one key head for all) and new (40b: groups). <see href="https://arxiv.org/abs/2311.16867"/>.</summary>
internal sealed class FalconModel : Decoder
{
    public readonly Embedding word_embeddings;
    public readonly IReadOnlyList<FalconLayer> h;
    public readonly LayerNorm ln_f;

    public FalconModel(PretrainedConfig config)
    {
        var hidden = config.Int("hidden_size");
        word_embeddings = new Embedding(config.VocabSize, hidden);
        h = [.. Enumerable.Range(0, config.Int("num_hidden_layers")).Select(index => new FalconLayer(config, index))];
        ln_f = new LayerNorm(hidden, config.Number("layer_norm_epsilon", 1e-5));
        Rotary = config.Flag("alibi", false) ? null : new RotaryEmbedding(config, hidden / config.Int("num_attention_heads"));
    }

    public RotaryEmbedding? Rotary { get; }

    public override Embedding TokenEmbedding => word_embeddings;

    public override int LayerCount => h.Count;

    public override Tensor Forward(ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        var x = word_embeddings.Forward(batch.Ids, batch); // [n, hidden]
        var angle = Rotary?.At(batch, x.dtype);
        foreach (var layer in h)
        {
            x = GradientCheckpoints.Layer(x, batch, h => layer.Forward(h, angle, batch), angle?.Cos, angle?.Sin);
        }

        return ln_f.Forward(x, batch).MoveToOuterDisposeScope();
    }
}

internal sealed class FalconLayer : Module
{
    public readonly LayerNorm? input_layernorm;
    public readonly LayerNorm? post_attention_layernorm;
    public readonly LayerNorm? ln_attn;
    public readonly LayerNorm? ln_mlp;
    public readonly FalconAttention self_attention;
    public readonly FourHMlp mlp;

    public FalconLayer(PretrainedConfig config, int index)
    {
        var (hidden, isNew) = (config.Int("hidden_size"), config.Flag("new_decoder_architecture", false));
        LayerNorm Norm() => new(hidden, config.Number("layer_norm_epsilon", 1e-5));
        IsParallel = isNew || config.Flag("parallel_attn", true);
        if (isNew && config.Int("num_ln_in_parallel_attn", 2) == 2)
        {
            (ln_attn, ln_mlp) = (Norm(), Norm());
        }
        else
        {
            (input_layernorm, post_attention_layernorm) = (Norm(), IsParallel ? null : Norm());
        }

        self_attention = new FalconAttention(config, index);
        mlp = new FourHMlp(hidden, config.Int("ffn_hidden_size", 4 * hidden), config.Flag("bias", false), Activation.Of(config, "activation", "gelu"));
    }

    /// <summary>Attention and feed-forward read the same stream.</summary>
    public bool IsParallel { get; }

    public Tensor Forward(Tensor x, (Tensor Cos, Tensor Sin)? angle, ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        var normed = (ln_attn ?? input_layernorm)!.Forward(x, batch);
        var attended = self_attention.Forward(normed, angle, batch);
        if (IsParallel)
        {
            return x.Plus(attended).Plus(mlp.Forward(ln_mlp?.Forward(x, batch) ?? normed, batch)).MoveToOuterDisposeScope();
        }

        x = x.Plus(attended);
        return x.Plus(mlp.Forward(post_attention_layernorm!.Forward(x, batch), batch)).MoveToOuterDisposeScope();
    }
}

internal sealed class FalconAttention : Module
{
    public readonly Linear query_key_value;
    public readonly Linear dense;
    private readonly int _index;
    private readonly AttentionOptions _options;

    public FalconAttention(PretrainedConfig config, int index)
    {
        var (hidden, bias) = (config.Int("hidden_size"), config.Flag("bias", false));
        (_index, Heads) = (index, config.Int("num_attention_heads"));
        HeadDim = hidden / Heads;
        Groups = config.Flag("new_decoder_architecture", false) ? config.Int("num_kv_heads", Heads) : config.Flag("multi_query", true) ? 1 : Heads;
        query_key_value = new Linear(hidden, (Heads + (2 * Groups)) * HeadDim, bias);
        dense = new Linear(hidden, hidden, bias);

        // Falcon scales the slopes with the scores.
        var scale = 1 / Math.Sqrt(HeadDim);
        _options = new AttentionOptions(scale, Bias: config.Flag("alibi", false) ? new Alibi(Heads, scale) : null);
    }

    public int Heads { get; }

    /// <summary>Heads of keys and values.</summary>
    public int Groups { get; }

    public int HeadDim { get; }

    public Tensor Forward(Tensor x, (Tensor Cos, Tensor Sin)? angle, ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        var each = Heads / Groups; // queries of a group stand before its key and value
        var parts = query_key_value.Forward(x, batch).view(-1, Groups, each + 2, HeadDim);
        var q = parts.narrow(2, 0, each).reshape(-1, Heads, HeadDim); // [n, H, D]
        var (k, v) = (parts.select(2, each), parts.select(2, each + 1)); // [n, G, D]
        if (angle is { } turn)
        {
            (q, k) = (RotaryEmbedding.Rotate(q, turn), RotaryEmbedding.Rotate(k, turn));
        }

        var y = batch.Attention.Attend(_index, q, k, v, _options);
        return dense.Forward(y.reshape(-1, Heads * HeadDim), batch).MoveToOuterDisposeScope();
    }
}
