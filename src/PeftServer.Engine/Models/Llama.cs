using PeftServer.Engine.Kernels;

namespace PeftServer.Engine.Models;

/// <summary>
/// Llama with a language-modelling head, all of it in this file. <see href="https://arxiv.org/abs/2302.13971"/>;
/// grouped heads: <see href="https://arxiv.org/abs/2307.09288"/>.
/// </summary>
public sealed class LlamaForCausalLM : CausalLanguageModel
{
    internal readonly LlamaModel model;
    internal readonly Linear lm_head;

    public LlamaForCausalLM(PretrainedConfig config)
        : base(config)
    {
        model = new LlamaModel(config);
        lm_head = new Linear(HiddenSize, config.VocabSize, tied: IsTied ? model.embed_tokens.weight : null);
    }

    public override int HiddenSize => model.embed_tokens.Width;

    public override int LayerCount => model.layers.Count;

    public override int MaxLength => Config.Int("max_position_embeddings", 2048);

    private bool IsTied => Config.Flag("tie_word_embeddings", false);

    public override string OutputHead => nameof(lm_head);

    protected override Tensor Through(ForwardBatch batch) => model.Forward(batch);

    protected override Tensor Scores(Tensor hidden, ForwardBatch batch) => lm_head.Forward(hidden, batch);

    protected override bool Ignores(string name) => name.EndsWith("rotary_emb.inv_freq", StringComparison.Ordinal);
}

/// <summary>The decoder stack.</summary>
internal sealed class LlamaModel : Module
{
    public readonly Embedding embed_tokens;
    public readonly IReadOnlyList<LlamaDecoderLayer> layers;
    public readonly RmsNorm norm;
    public readonly HiddenSite invertible_adapters;

    public LlamaModel(PretrainedConfig config)
    {
        var shape = LlamaShape.Read(config);
        embed_tokens = new Embedding(config.VocabSize, shape.Hidden);
        layers = [.. Enumerable.Range(0, config.Int("num_hidden_layers")).Select(index => new LlamaDecoderLayer(shape, index))];
        norm = new RmsNorm(shape.Hidden, shape.Eps);
        invertible_adapters = new HiddenSite(shape.Hidden);
        Rotary = new RotaryEmbedding(config, shape.HeadDim);
    }

    public RotaryEmbedding Rotary { get; }

    public Tensor Forward(ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        var x = invertible_adapters.Forward(embed_tokens.Forward(batch.Ids, batch), batch); // [n, hidden]
        var angle = Rotary.At(batch, x.dtype);
        foreach (var layer in layers)
        {
            x = GradientCheckpoints.Layer(x, batch, h => layer.Forward(h, angle, batch), angle.Cos, angle.Sin);
        }

        return norm.Forward(x, batch).MoveToOuterDisposeScope(); // [n, hidden]
    }
}

internal sealed class LlamaDecoderLayer(LlamaShape shape, int index) : Module
{
    public readonly LlamaAttention self_attn = new(shape, index);
    public readonly LlamaMlp mlp = new(shape);
    public readonly RmsNorm input_layernorm = new(shape.Hidden, shape.Eps);
    public readonly RmsNorm post_attention_layernorm = new(shape.Hidden, shape.Eps);
    public readonly ResidualSite attention_adapters = new(Sublayer.SelfAttention, index);
    public readonly ResidualSite output_adapters = new(Sublayer.FeedForward, index);
    public readonly HiddenSite reft_layer = new(shape.Hidden, index);

    public Tensor Forward(Tensor x, (Tensor Cos, Tensor Sin) angle, ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        x = attention_adapters.Add(self_attn.Forward(input_layernorm.Forward(x, batch), angle, batch), x, batch); // [n, hidden]
        x = output_adapters.Add(mlp.Forward(post_attention_layernorm.Forward(x, batch), batch), x, batch); // [n, hidden]
        return reft_layer.Forward(x, batch).MoveToOuterDisposeScope();
    }
}

internal sealed class LlamaAttention(LlamaShape shape, int index) : Module
{
    public readonly Linear q_proj = new(shape.Hidden, shape.Heads * shape.HeadDim, shape.AttentionBias);
    public readonly Linear k_proj = new(shape.Hidden, shape.KeyValueHeads * shape.HeadDim, shape.AttentionBias);
    public readonly Linear v_proj = new(shape.Hidden, shape.KeyValueHeads * shape.HeadDim, shape.AttentionBias);
    public readonly Linear o_proj = new(shape.Heads * shape.HeadDim, shape.Hidden, shape.AttentionBias);
    private readonly AttentionOptions _options = new(1 / Math.Sqrt(shape.HeadDim));

    public HeadLayout Heads => new(shape.Heads, shape.KeyValueHeads, shape.HeadDim);

    public Tensor Forward(Tensor x, (Tensor Cos, Tensor Sin) angle, ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        var q = q_proj.Forward(x, batch).view(-1, shape.Heads, shape.HeadDim); // [n, H, D]
        var k = k_proj.Forward(x, batch).view(-1, shape.KeyValueHeads, shape.HeadDim); // [n, G, D]
        var v = v_proj.Forward(x, batch).view(-1, shape.KeyValueHeads, shape.HeadDim); // [n, G, D]

        q = RotaryEmbedding.Rotate(q, angle);
        k = RotaryEmbedding.Rotate(k, angle);
        var y = batch.Attention.Attend(index, q, k, v, _options).reshape(-1, shape.Heads * shape.HeadDim); // [n, H·D]

        return o_proj.Forward(y, batch).MoveToOuterDisposeScope(); // [n, hidden]
    }
}

/// <summary>Gated feed-forward: down(silu(gate(x)) · up(x)).</summary>
internal sealed class LlamaMlp(LlamaShape shape) : Module
{
    public readonly Linear gate_proj = new(shape.Hidden, shape.Intermediate, shape.MlpBias);
    public readonly Linear up_proj = new(shape.Hidden, shape.Intermediate, shape.MlpBias);
    public readonly Linear down_proj = new(shape.Intermediate, shape.Hidden, shape.MlpBias);

    public Tensor Forward(Tensor x, ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        var gated = F.silu(gate_proj.Forward(x, batch)).mul(up_proj.Forward(x, batch)); // [n, intermediate]
        return down_proj.Forward(gated, batch).MoveToOuterDisposeScope(); // [n, hidden]
    }
}

/// <summary>What Llama's layers need to know of config.json.</summary>
internal sealed record LlamaShape(int Hidden, int Intermediate, int Heads, int KeyValueHeads, int HeadDim, double Eps, bool AttentionBias, bool MlpBias)
{
    public static LlamaShape Read(PretrainedConfig config)
    {
        config.Require("hidden_act", "silu", "silu");
        var (hidden, heads) = (config.Int("hidden_size"), config.Int("num_attention_heads"));
        var groups = config.Int("num_key_value_heads", heads);
        if (heads <= 0 || groups <= 0 || heads % groups != 0)
        {
            throw config.Unsupported("num_key_value_heads", groups);
        }

        return new LlamaShape(
            hidden, config.Int("intermediate_size"), heads, groups, config.Int("head_dim", hidden / heads), config.Number("rms_norm_eps", 1e-6),
            config.Flag("attention_bias", false), config.Flag("mlp_bias", false));
    }
}
