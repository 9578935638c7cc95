using PeftServer.Engine.Native;

namespace PeftServer.Engine.Models;

/// <summary>BLOOM: ALiBi in place of positions, a norm behind the embedding. <see href="https://arxiv.org/abs/2211.05100"/>.</summary>
internal sealed class BloomModel : Decoder
{
    public readonly Embedding word_embeddings;
    public readonly LayerNorm word_embeddings_layernorm;
    public readonly IReadOnlyList<BloomBlock> h;
    public readonly LayerNorm ln_f;

    public BloomModel(PretrainedConfig config)
    {
        var (hidden, eps) = (Hidden(config), config.Number("layer_norm_epsilon", 1e-5));
        word_embeddings = new Embedding(config.VocabSize, hidden);
        word_embeddings_layernorm = new LayerNorm(hidden, eps);
        h = [.. Enumerable.Range(0, config.Int("n_layer", config.Int("num_hidden_layers", 0))).Select(index => new BloomBlock(config, index))];
        ln_f = new LayerNorm(hidden, eps);
    }

    public override Embedding TokenEmbedding => word_embeddings;

    public override int LayerCount => h.Count;

    public override Tensor Forward(ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        var x = word_embeddings_layernorm.Forward(word_embeddings.Forward(batch.Ids, batch), batch); // [n, hidden]
        foreach (var block in h)
        {
            x = GradientCheckpoints.Layer(x, batch, h => block.Forward(h, batch));
        }

        return ln_f.Forward(x, batch).MoveToOuterDisposeScope();
    }

    internal static int Hidden(PretrainedConfig config) => config.Has("hidden_size") ? config.Int("hidden_size") : config.Int("n_embed");

    internal static int Heads(PretrainedConfig config) => config.Has("n_head") ? config.Int("n_head") : config.Int("num_attention_heads");
}

internal sealed class BloomBlock(PretrainedConfig config, int index) : Module
{
    public readonly LayerNorm input_layernorm = new(BloomModel.Hidden(config), config.Number("layer_norm_epsilon", 1e-5));
    public readonly BloomAttention self_attention = new(BloomModel.Hidden(config), BloomModel.Heads(config), index);
    public readonly LayerNorm post_attention_layernorm = new(BloomModel.Hidden(config), config.Number("layer_norm_epsilon", 1e-5));
    public readonly FourHMlp mlp = new(BloomModel.Hidden(config), 4 * BloomModel.Hidden(config), true, Activation.TanhGelu);
    private readonly bool _fromNorm = config.Flag("apply_residual_connection_post_layernorm", false);

    public Tensor Forward(Tensor x, ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        var normed = input_layernorm.Forward(x, batch);
        x = (_fromNorm ? normed : x).Plus(self_attention.Forward(normed, batch));
        normed = post_attention_layernorm.Forward(x, batch);
        return (_fromNorm ? normed : x).Plus(mlp.Forward(normed, batch)).MoveToOuterDisposeScope();
    }
}

internal sealed class BloomAttention(int hidden, int heads, int index) : Module
{
    public readonly Linear query_key_value = new(hidden, 3 * hidden, hasBias: true);
    public readonly Linear dense = new(hidden, hidden, hasBias: true);
    private readonly AttentionOptions _options = new(1 / Math.Sqrt(hidden / heads), Bias: new Alibi(heads, 1));

    public Tensor Forward(Tensor x, ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        var parts = query_key_value.Forward(x, batch).view(-1, heads, 3, hidden / heads).unbind(2); // [n, H, D]
        var y = batch.Attention.Attend(index, parts[0], parts[1], parts[2], _options);
        return dense.Forward(y.reshape(-1, hidden), batch).MoveToOuterDisposeScope();
    }
}

/// <summary>Scores fall with distance, with a slope for each head: <see href="https://arxiv.org/abs/2108.12409"/>.</summary>
internal sealed class Alibi : AttentionBias
{
    private readonly float[] _slopes;

    public Alibi(int heads, double scale)
    {
        var power = (int)System.Numerics.BitOperations.RoundUpToPowerOf2((uint)heads);
        var closest = power == heads ? heads : power / 2;
        var slopes = Enumerable.Range(1, closest).Select(i => Math.Pow(2, -8.0 * i / closest))
            .Concat(Enumerable.Range(0, heads - closest).Select(i => Math.Pow(2, -4.0 * ((2 * i) + 1) / closest)));
        _slopes = [.. slopes.Select(slope => (float)(slope * scale))];
    }

    public override Tensor Scores(Tensor q, Tensor k)
    {
        using var scope = NewDisposeScope();
        var slopes = tensor(_slopes, device: q.device).view(-1, 1, 1); // [H, 1, 1]
        return Distances(q, k).to(ScalarType.Float32).unsqueeze(0).mul(slopes).to(q.dtype).MoveToOuterDisposeScope(); // [H, T, S]
    }
}
