namespace PeftServer.Engine.Models;

/// <summary>GPT-J: attention and feed-forward side by side behind one norm, rotary positions over neighbouring pairs.</summary>
internal sealed class GptJModel : Decoder
{
    public readonly Embedding wte;
    public readonly IReadOnlyList<GptJBlock> h;
    public readonly LayerNorm ln_f;
    public readonly HiddenSite invertible_adapters;

    public GptJModel(PretrainedConfig config)
    {
        var width = config.Int("n_embd");
        wte = new Embedding(config.VocabSize, width);
        h = [.. Enumerable.Range(0, config.Int("n_layer")).Select(index => new GptJBlock(config, index))];
        ln_f = new LayerNorm(width, config.Number("layer_norm_epsilon", 1e-5));
        invertible_adapters = new HiddenSite(width);
        Rotary = new RotaryEmbedding(config, config.Int("rotary_dim", width / config.Int("n_head")));
    }

    public RotaryEmbedding Rotary { get; }

    public override Embedding TokenEmbedding => wte;

    public override int LayerCount => h.Count;

    public override Tensor Forward(ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        var x = invertible_adapters.Forward(wte.Forward(batch.Ids, batch), batch); // [n, width]
        var angle = Rotary.At(batch, x.dtype);
        foreach (var block in h)
        {
            x = GradientCheckpoints.Layer(x, batch, h => block.Forward(h, angle, batch), angle.Cos, angle.Sin);
        }

        return ln_f.Forward(x, batch).MoveToOuterDisposeScope();
    }
}

internal sealed class GptJBlock(PretrainedConfig config, int index) : Module
{
    public readonly LayerNorm ln_1 = new(config.Int("n_embd"), config.Number("layer_norm_epsilon", 1e-5));
    public readonly GptJAttention attn = new(config.Int("n_embd"), config.Int("n_head"), index);
    public readonly GptJMlp mlp = new(config);
    public readonly ResidualSite attention_adapters = new(Sublayer.SelfAttention, index);
    public readonly ResidualSite output_adapters = new(Sublayer.FeedForward, index);
    public readonly HiddenSite reft_layer = new(config.Int("n_embd"), index);

    public Tensor Forward(Tensor x, (Tensor Cos, Tensor Sin) angle, ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        var normed = ln_1.Forward(x, batch);
        x = attention_adapters.Add(attn.Forward(normed, angle, batch), x, batch);
        x = output_adapters.Add(mlp.Forward(normed, batch), x, batch);
        return reft_layer.Forward(x, batch).MoveToOuterDisposeScope();
    }
}

internal sealed class GptJAttention(int width, int heads, int index) : Module
{
    public readonly Linear q_proj = new(width, width);
    public readonly Linear k_proj = new(width, width);
    public readonly Linear v_proj = new(width, width);
    public readonly Linear out_proj = new(width, width);
    private readonly AttentionOptions _options = new(1 / Math.Sqrt(width / heads));

    public int Heads => heads;

    public Tensor Forward(Tensor x, (Tensor Cos, Tensor Sin) angle, ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        var q = RotaryEmbedding.RotateInterleaved(q_proj.Forward(x, batch).view(-1, heads, width / heads), angle); // [n, H, D]
        var k = RotaryEmbedding.RotateInterleaved(k_proj.Forward(x, batch).view(-1, heads, width / heads), angle);
        var v = v_proj.Forward(x, batch).view(-1, heads, width / heads);
        return out_proj.Forward(batch.Attention.Attend(index, q, k, v, _options).reshape(-1, width), batch).MoveToOuterDisposeScope();
    }
}

internal sealed class GptJMlp(PretrainedConfig config) : Module
{
    public readonly Linear fc_in = new(config.Int("n_embd"), config.Int("n_inner", 4 * config.Int("n_embd")), hasBias: true);
    public readonly Linear fc_out = new(config.Int("n_inner", 4 * config.Int("n_embd")), config.Int("n_embd"), hasBias: true);

    public Func<Tensor, Tensor> Act { get; } = Activation.Of(config, "activation_function", "gelu_new");

    public Tensor Forward(Tensor x, ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        return fc_out.Forward(Act(fc_in.Forward(x, batch)), batch).MoveToOuterDisposeScope();
    }
}
