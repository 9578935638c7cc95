using PeftServer.Engine.Native;

namespace PeftServer.Engine.Models;

/// <summary>GPT-2: learned positions, one projection for q, k and v, weights stored [in, out]. Radford et al. 2019.</summary>
internal sealed class Gpt2Model : Decoder
{
    public readonly Embedding wte;
    public readonly Embedding wpe;
    public readonly IReadOnlyList<Gpt2Block> h;
    public readonly LayerNorm ln_f;
    public readonly HiddenSite invertible_adapters;

    public Gpt2Model(PretrainedConfig config)
    {
        var width = config.Int("n_embd");
        wte = new Embedding(config.VocabSize, width);
        wpe = new Embedding(config.Int("n_positions"), width);
        h = [.. Enumerable.Range(0, config.Int("n_layer")).Select(index => new Gpt2Block(config, index))];
        ln_f = new LayerNorm(width, config.Number("layer_norm_epsilon", 1e-5));
        invertible_adapters = new HiddenSite(width);
    }

    public override Embedding TokenEmbedding => wte;

    public override int LayerCount => h.Count;

    public override Tensor Forward(ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        var x = wte.Forward(batch.Ids, batch).Plus(wpe.Forward(batch.Positions, batch)); // [n, width]
        x = invertible_adapters.Forward(x, batch);
        foreach (var block in h)
        {
            x = GradientCheckpoints.Layer(x, batch, h => block.Forward(h, batch));
        }

        return ln_f.Forward(x, batch).MoveToOuterDisposeScope();
    }
}

internal sealed class Gpt2Block(PretrainedConfig config, int index) : Module
{
    public readonly LayerNorm ln_1 = new(config.Int("n_embd"), config.Number("layer_norm_epsilon", 1e-5));
    public readonly Gpt2Attention attn = new(config, index);
    public readonly LayerNorm ln_2 = new(config.Int("n_embd"), config.Number("layer_norm_epsilon", 1e-5));
    public readonly Gpt2Mlp mlp = new(config);
    public readonly ResidualSite attention_adapters = new(Sublayer.SelfAttention, index);
    public readonly ResidualSite output_adapters = new(Sublayer.FeedForward, index);
    public readonly HiddenSite reft_layer = new(config.Int("n_embd"), index);

    public Tensor Forward(Tensor x, ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        x = attention_adapters.Add(attn.Forward(ln_1.Forward(x, batch), batch), x, batch);
        x = output_adapters.Add(mlp.Forward(ln_2.Forward(x, batch), batch), x, batch);
        return reft_layer.Forward(x, batch).MoveToOuterDisposeScope();
    }
}

internal sealed class Gpt2Attention : Module
{
    public readonly Conv1D c_attn;
    public readonly Conv1D c_proj;
    private readonly int _index;
    private readonly AttentionOptions _options;

    public Gpt2Attention(PretrainedConfig config, int index)
    {
        var width = config.Int("n_embd");
        (_index, Heads) = (index, config.Int("n_head"));
        HeadDim = width / Heads;
        c_attn = new Conv1D(width, 3 * width);
        c_proj = new Conv1D(width, width);
        var scale = config.Flag("scale_attn_weights", true) ? 1 / Math.Sqrt(HeadDim) : 1;
        _options = new AttentionOptions(config.Flag("scale_attn_by_inverse_layer_idx", false) ? scale / (index + 1) : scale);
    }

    public int Heads { get; }

    public int HeadDim { get; }

    public double Scale => _options.Scale;

    public Tensor Forward(Tensor x, ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        var parts = c_attn.Forward(x, batch).view(-1, 3, Heads, HeadDim); // [n, 3, H, D]
        var y = batch.Attention.Attend(_index, parts.select(1, 0), parts.select(1, 1), parts.select(1, 2), _options);
        return c_proj.Forward(y.reshape(-1, Heads * HeadDim), batch).MoveToOuterDisposeScope();
    }
}

internal sealed class Gpt2Mlp(PretrainedConfig config) : Module
{
    public readonly Conv1D c_fc = new(config.Int("n_embd"), config.Int("n_inner", 4 * config.Int("n_embd")));
    public readonly Conv1D c_proj = new(config.Int("n_inner", 4 * config.Int("n_embd")), config.Int("n_embd"));

    public Func<Tensor, Tensor> Act { get; } = Activation.Of(config, "activation_function", "gelu_new");

    public Tensor Forward(Tensor x, ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        return c_proj.Forward(Act(c_fc.Forward(x, batch)), batch).MoveToOuterDisposeScope();
    }
}
