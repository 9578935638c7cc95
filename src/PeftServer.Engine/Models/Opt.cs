using PeftServer.Engine.Native;

namespace PeftServer.Engine.Models;

/// <summary>OPT: learned positions that begin at 2; the 350m model has its norms behind, and narrower embeddings. <see href="https://arxiv.org/abs/2205.01068"/>.</summary>
internal sealed class OptModel(PretrainedConfig config) : Decoder
{
    public readonly OptDecoder decoder = new(config);

    public override Embedding TokenEmbedding => decoder.embed_tokens;

    public override int LayerCount => decoder.layers.Count;

    public override Tensor Forward(ForwardBatch batch) => decoder.Forward(batch);
}

internal sealed class OptDecoder : Module
{
    /// <summary>The row of the table of positions that a sequence begins at.</summary>
    public const long FirstPosition = 2;

    public readonly Embedding embed_tokens;
    public readonly Embedding embed_positions;
    public readonly Linear? project_out;
    public readonly Linear? project_in;
    public readonly LayerNorm? final_layer_norm;
    public readonly IReadOnlyList<OptLayer> layers;
    private static readonly KeptScalar Offset = new(FirstPosition);

    public OptDecoder(PretrainedConfig config)
    {
        if (!config.Flag("layer_norm_elementwise_affine", true))
        {
            throw config.Unsupported("layer_norm_elementwise_affine", false);
        }

        var hidden = config.Int("hidden_size");
        var width = config.Int("word_embed_proj_dim", hidden);
        embed_tokens = new Embedding(config.VocabSize, width);
        embed_positions = new Embedding(config.Int("max_position_embeddings") + 2, hidden);
        (project_out, project_in) = width == hidden ? (null, null) : (new Linear(hidden, width), new Linear(width, hidden));
        final_layer_norm = config.Flag("do_layer_norm_before", true) && !config.Flag("_remove_final_layer_norm", false) ? new LayerNorm(hidden, 1e-5) : null;
        layers = [.. Enumerable.Range(0, config.Int("num_hidden_layers")).Select(index => new OptLayer(config, index))];
    }

    public Tensor Forward(ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        var x = embed_tokens.Forward(batch.Ids, batch); // [n, width]
        x = (project_in?.Forward(x, batch) ?? x).Plus(embed_positions.Forward(batch.Positions.add(Offset), batch)); // [n, hidden]
        foreach (var layer in layers)
        {
            x = GradientCheckpoints.Layer(x, batch, h => layer.Forward(h, batch));
        }

        x = final_layer_norm?.Forward(x, batch) ?? x;
        return (project_out?.Forward(x, batch) ?? x).MoveToOuterDisposeScope(); // [n, width]
    }
}

internal sealed class OptLayer(PretrainedConfig config, int index) : Module
{
    public readonly OptAttention self_attn = new(config.Int("hidden_size"), config.Int("num_attention_heads"), config.Flag("enable_bias", true), index);
    public readonly LayerNorm self_attn_layer_norm = new(config.Int("hidden_size"), 1e-5);
    public readonly Linear fc1 = new(config.Int("hidden_size"), config.Int("ffn_dim"), config.Flag("enable_bias", true));
    public readonly Linear fc2 = new(config.Int("ffn_dim"), config.Int("hidden_size"), config.Flag("enable_bias", true));
    public readonly LayerNorm final_layer_norm = new(config.Int("hidden_size"), 1e-5);

    /// <summary>The norms stand before attention and feed-forward, else behind.</summary>
    public bool NormsBefore { get; } = config.Flag("do_layer_norm_before", true);

    public Func<Tensor, Tensor> Act { get; } = Activation.Of(config, "activation_function", "relu");

    public Tensor Forward(Tensor x, ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        x = x.Plus(self_attn.Forward(NormsBefore ? self_attn_layer_norm.Forward(x, batch) : x, batch));
        x = NormsBefore ? x : self_attn_layer_norm.Forward(x, batch);
        x = x.Plus(fc2.Forward(Act(fc1.Forward(NormsBefore ? final_layer_norm.Forward(x, batch) : x, batch)), batch));
        return (NormsBefore ? x : final_layer_norm.Forward(x, batch)).MoveToOuterDisposeScope();
    }
}

internal sealed class OptAttention(int hidden, int heads, bool hasBias, int index) : Module
{
    public readonly Linear k_proj = new(hidden, hidden, hasBias);
    public readonly Linear v_proj = new(hidden, hidden, hasBias);
    public readonly Linear q_proj = new(hidden, hidden, hasBias);
    public readonly Linear out_proj = new(hidden, hidden, hasBias);
    private readonly AttentionOptions _options = new(1 / Math.Sqrt(hidden / heads));

    public int Heads => heads;

    public int HeadDim => hidden / heads;

    public Tensor Forward(Tensor x, ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        var q = q_proj.Forward(x, batch).view(-1, heads, hidden / heads); // [n, H, D]
        var k = k_proj.Forward(x, batch).view(-1, heads, hidden / heads);
        var v = v_proj.Forward(x, batch).view(-1, heads, hidden / heads);
        return out_proj.Forward(batch.Attention.Attend(index, q, k, v, _options).reshape(-1, hidden), batch).MoveToOuterDisposeScope();
    }
}
