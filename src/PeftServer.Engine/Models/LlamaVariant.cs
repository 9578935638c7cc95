using PeftServer.Engine.Native;

namespace PeftServer.Engine.Models;

/// <summary>Where the norms of a layer stand.</summary>
internal enum NormLayout
{
    /// <summary>Before attention and before the feed-forward: Llama.</summary>
    Before,

    /// <summary>Before and behind both: Gemma 2.</summary>
    Around,

    /// <summary>Behind both: OLMo 2.</summary>
    Behind,

    /// <summary>One norm before both, which run side by side: Cohere, Phi.</summary>
    Parallel,
}

internal enum QkNorm
{
    None,

    /// <summary>Over each head: Qwen 3, Gemma 3, Phi; StableLM and Cohere with factors of its own for each head.</summary>
    Head,

    /// <summary>Over all heads at once: OLMo 2.</summary>
    All,
}

/// <summary>How the feed-forward part looks and is named.</summary>
internal enum MlpForm
{
    /// <summary>gate_proj, up_proj, down_proj.</summary>
    Gated,

    /// <summary>gate_up_proj, down_proj: Phi 3.</summary>
    GatedFused,

    /// <summary>c_fc, c_proj: StarCoder 2.</summary>
    Cfc,

    /// <summary>fc1, fc2: Phi.</summary>
    Fc,
}

/// <summary>
/// What tells one of Llama's relatives from another. Each is a line in <see cref="LlamaVariants"/> that says how it differs.
/// </summary>
internal sealed record LlamaVariant
{
    public required int Hidden { get; init; }
    public required int Intermediate { get; init; }
    public required int Heads { get; init; }
    public required int KeyValueHeads { get; init; }
    public required int HeadDim { get; init; }
    public required int RotaryDim { get; init; }
    public required Func<Tensor, Tensor> Act { get; init; }
    public required Func<int, Site> Norm { get; init; }
    public bool QkvBias { get; init; }
    public bool OutBias { get; init; }
    public bool MlpBias { get; init; }

    /// <summary>The norm of queries or keys by the number of their heads, where it is another than <see cref="Norm"/>.</summary>
    public Func<int, Module>? NormOfHeads { get; init; }

    /// <summary>The norms of queries and keys are called q_layernorm and k_layernorm.</summary>
    public bool QkNormIsLayernorm { get; init; }

    public bool FusedQkv { get; init; }
    public bool OutIsDense { get; init; }
    public bool FinalLayernorm { get; init; }
    public bool InterleavedRotary { get; init; }
    public NormLayout Norms { get; init; }
    public QkNorm QkNorm { get; init; }
    public MlpForm Mlp { get; init; }
    public double? Scale { get; init; }
    public double? SoftCap { get; init; }
    public double EmbeddingScale { get; init; } = 1;

    /// <summary>transformers scales inside of the table, so a prompt's rows are not scaled.</summary>
    public bool ScalesLookup { get; init; }

    public double ResidualScale { get; init; } = 1;

    /// <summary>The experts of a layer; null: it has one feed-forward part.</summary>
    public Func<int, ExpertShape?> Experts { get; init; } = _ => null;

    /// <summary>Window of a layer; null: it sees everything.</summary>
    public Func<int, int?> Window { get; init; } = _ => null;

    /// <summary>Whether a layer turns its heads.</summary>
    public Func<int, bool> Turns { get; init; } = _ => true;

    /// <summary>Windowed layers have angles of their own (Gemma 3).</summary>
    public bool LocalRotary { get; init; }
}

/// <summary>A relative of Llama: the same stack, with the differences its <see cref="LlamaVariant"/> names.</summary>
internal sealed class LlamaVariantModel : Decoder
{
    public readonly Embedding embed_tokens;
    public readonly IReadOnlyList<VariantLayer> layers;
    public readonly Site? norm;
    public readonly Site? final_layernorm;
    public readonly HiddenSite invertible_adapters;
    private readonly KeptScalar? _embeddingScale;

    public LlamaVariantModel(PretrainedConfig config, LlamaVariant variant)
    {
        Variant = variant;
        embed_tokens = new Embedding(config.VocabSize, variant.Hidden) { LookupScale = variant.ScalesLookup ? variant.EmbeddingScale : 1 };
        layers = [.. Enumerable.Range(0, config.Int("num_hidden_layers")).Select(index => new VariantLayer(variant, index))];
        (norm, final_layernorm) = variant.FinalLayernorm ? (null, variant.Norm(variant.Hidden)) : (variant.Norm(variant.Hidden), (Site?)null);
        invertible_adapters = new HiddenSite(variant.Hidden);
        Rotary = variant.LocalRotary
            ? new RotaryEmbedding(config, variant.RotaryDim, "full_attention", theta: 1_000_000)
            : new RotaryEmbedding(config, variant.RotaryDim);
        LocalRotary = variant.LocalRotary ? new RotaryEmbedding(config, variant.RotaryDim, "sliding_attention", "rope_local_base_freq") : null;
        _embeddingScale = variant.EmbeddingScale == 1 ? null : new KeptScalar(variant.EmbeddingScale);
    }

    public RotaryEmbedding Rotary { get; }

    /// <summary>The angles of layers with a window, where they have their own.</summary>
    public RotaryEmbedding? LocalRotary { get; }

    public LlamaVariant Variant { get; }

    public override Embedding TokenEmbedding => embed_tokens;

    public override int LayerCount => layers.Count;

    public override Tensor Forward(ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        var x = embed_tokens.Forward(batch.Ids, batch); // [n, hidden]
        x = invertible_adapters.Forward(_embeddingScale is null ? x : x.mul(_embeddingScale), batch);
        var angle = Rotary.At(batch, x.dtype);
        var local = LocalRotary?.At(batch, x.dtype);
        for (var i = 0; i < layers.Count; i++)
        {
            var (layer, turns) = (layers[i], Variant.Window(i) is null ? angle : local ?? angle);
            x = GradientCheckpoints.Layer(x, batch, h => layer.Forward(h, turns, batch), turns.Cos, turns.Sin);
        }

        return (norm ?? final_layernorm)!.Forward(x, batch).MoveToOuterDisposeScope(); // [n, hidden]
    }
}

internal sealed class VariantLayer : Module
{
    public readonly VariantAttention self_attn;
    public readonly FeedForward mlp;
    public readonly Site? input_layernorm;
    public readonly Site? post_attention_layernorm;
    public readonly Site? pre_feedforward_layernorm;
    public readonly Site? post_feedforward_layernorm;
    public readonly ResidualSite attention_adapters;
    public readonly ResidualSite output_adapters;
    public readonly HiddenSite reft_layer;
    private readonly NormLayout _norms;
    private readonly KeptScalar? _residualScale;

    public VariantLayer(LlamaVariant variant, int index)
    {
        Site? Norm(bool present) => present ? variant.Norm(variant.Hidden) : null;
        _norms = variant.Norms;
        self_attn = new VariantAttention(variant, index);
        mlp = variant.Experts(index) is { } experts ? new SparseMoe(experts, variant.Act) : new VariantMlp(variant);
        input_layernorm = Norm(_norms is not NormLayout.Behind);
        post_attention_layernorm = Norm(_norms is not NormLayout.Parallel);
        pre_feedforward_layernorm = Norm(_norms is NormLayout.Around);
        post_feedforward_layernorm = Norm(_norms is NormLayout.Around or NormLayout.Behind);
        attention_adapters = new ResidualSite(Sublayer.SelfAttention, index);
        output_adapters = new ResidualSite(Sublayer.FeedForward, index);
        reft_layer = new HiddenSite(variant.Hidden, index);
        _residualScale = variant.ResidualScale == 1 ? null : new KeptScalar(variant.ResidualScale);
    }

    public Tensor Forward(Tensor x, (Tensor Cos, Tensor Sin) angle, ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        var normed = input_layernorm?.Forward(x, batch) ?? x; // [n, hidden]
        var attended = self_attn.Forward(normed, angle, batch);
        if (_norms is NormLayout.Parallel)
        {
            x = attention_adapters.Add(attended, x, batch);
            x = output_adapters.Add(mlp.Forward(normed, batch), x, batch);
            return reft_layer.Forward(x, batch).MoveToOuterDisposeScope();
        }

        var behind = _norms is NormLayout.Around or NormLayout.Behind;
        x = attention_adapters.Add(Scaled(behind ? post_attention_layernorm!.Forward(attended, batch) : attended), x, batch);
        normed = _norms switch
        {
            NormLayout.Around => pre_feedforward_layernorm!.Forward(x, batch),
            NormLayout.Behind => x,
            _ => post_attention_layernorm!.Forward(x, batch),
        };
        var fed = mlp.Forward(normed, batch);
        x = output_adapters.Add(Scaled(behind ? post_feedforward_layernorm!.Forward(fed, batch) : fed), x, batch);
        return reft_layer.Forward(x, batch).MoveToOuterDisposeScope();
    }

    private Tensor Scaled(Tensor y) => _residualScale is null ? y : y.mul(_residualScale);
}

internal sealed class VariantAttention : Module
{
    public readonly Linear? q_proj;
    public readonly Linear? k_proj;
    public readonly Linear? v_proj;
    public readonly Linear? qkv_proj;
    public readonly Linear? o_proj;
    public readonly Linear? dense;
    public readonly Module? q_norm;
    public readonly Module? k_norm;
    public readonly Module? q_layernorm;
    public readonly Module? k_layernorm;
    private readonly LlamaVariant _variant;
    private readonly int _index;
    private readonly AttentionOptions _options;

    public VariantAttention(LlamaVariant variant, int index)
    {
        (_variant, _index) = (variant, index);
        var (queries, keys) = (variant.Heads * variant.HeadDim, variant.KeyValueHeads * variant.HeadDim);
        if (variant.FusedQkv)
        {
            qkv_proj = new Linear(variant.Hidden, queries + (2 * keys), variant.QkvBias);
        }
        else
        {
            q_proj = new Linear(variant.Hidden, queries, variant.QkvBias);
            k_proj = new Linear(variant.Hidden, keys, variant.QkvBias);
            v_proj = new Linear(variant.Hidden, keys, variant.QkvBias);
        }

        var output = new Linear(queries, variant.Hidden, variant.OutBias);
        (o_proj, dense) = variant.OutIsDense ? (null, output) : (output, (Linear?)null);
        var (ofQueries, ofKeys) = variant.QkNorm is QkNorm.None ? (null, null) : (NormOf(variant.Heads), NormOf(variant.KeyValueHeads));
        (q_norm, k_norm) = variant.QkNormIsLayernorm ? (null, null) : (ofQueries, ofKeys);
        (q_layernorm, k_layernorm) = variant.QkNormIsLayernorm ? (ofQueries, ofKeys) : (null, null);
        _options = new AttentionOptions(variant.Scale ?? 1 / Math.Sqrt(variant.HeadDim), variant.Window(index), SoftCap: variant.SoftCap);
    }

    public Tensor Forward(Tensor x, (Tensor Cos, Tensor Sin) angle, ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        var (heads, groups, width) = (_variant.Heads, _variant.KeyValueHeads, _variant.HeadDim);
        Tensor q, k, v;
        if (qkv_proj is not null)
        {
            var parts = qkv_proj.Forward(x, batch).split([heads * width, groups * width, groups * width], -1);
            (q, k, v) = (parts[0], parts[1], parts[2]);
        }
        else
        {
            (q, k, v) = (q_proj!.Forward(x, batch), k_proj!.Forward(x, batch), v_proj!.Forward(x, batch));
        }

        if (_variant.QkNorm is QkNorm.All)
        {
            (q, k) = (Normed(q_norm ?? q_layernorm, q, batch), Normed(k_norm ?? k_layernorm, k, batch));
        }

        q = q.reshape(-1, heads, width); // [n, H, D]
        k = k.reshape(-1, groups, width); // [n, G, D]
        v = v.reshape(-1, groups, width); // [n, G, D]
        if (_variant.QkNorm is QkNorm.Head)
        {
            (q, k) = (Normed(q_norm ?? q_layernorm, q, batch), Normed(k_norm ?? k_layernorm, k, batch));
        }

        if (_variant.Turns(_index))
        {
            (q, k) = _variant.InterleavedRotary
                ? (RotaryEmbedding.RotateInterleaved(q, angle), RotaryEmbedding.RotateInterleaved(k, angle))
                : (RotaryEmbedding.Rotate(q, angle), RotaryEmbedding.Rotate(k, angle));
        }

        var y = batch.Attention.Attend(_index, q, k, v, _options).reshape(-1, heads * width); // [n, H·D]
        return (o_proj ?? dense)!.Forward(y, batch).MoveToOuterDisposeScope(); // [n, hidden]
    }

    private Module NormOf(int heads) => _variant.NormOfHeads?.Invoke(heads) ?? _variant.Norm(_variant.QkNorm is QkNorm.Head ? _variant.HeadDim : heads * _variant.HeadDim);

    private static Tensor Normed(Module? norm, Tensor x, ForwardBatch batch) => norm is HeadNorms each ? each.Forward(x, batch) : ((Site)norm!).Forward(x, batch);
}

/// <summary>The part of a layer behind attention.</summary>
internal abstract class FeedForward : Module
{
    /// <summary>x and the result are [n, hidden].</summary>
    public abstract Tensor Forward(Tensor x, ForwardBatch batch);
}

internal sealed class VariantMlp : FeedForward
{
    public readonly Linear? gate_proj;
    public readonly Linear? up_proj;
    public readonly Linear? gate_up_proj;
    public readonly Linear? down_proj;
    public readonly Linear? c_fc;
    public readonly Linear? c_proj;
    public readonly Linear? fc1;
    public readonly Linear? fc2;
    private readonly Func<Tensor, Tensor> _act;

    public VariantMlp(LlamaVariant variant)
    {
        _act = variant.Act;
        Linear In(int factor = 1) => new(variant.Hidden, factor * variant.Intermediate, variant.MlpBias);
        var output = new Linear(variant.Intermediate, variant.Hidden, variant.MlpBias);
        switch (variant.Mlp)
        {
            case MlpForm.Gated:
                (gate_proj, up_proj, down_proj) = (In(), In(), output);
                break;
            case MlpForm.GatedFused:
                (gate_up_proj, down_proj) = (In(2), output);
                break;
            case MlpForm.Cfc:
                (c_fc, c_proj) = (In(), output);
                break;
            default:
                (fc1, fc2) = (In(), output);
                break;
        }
    }

    public override Tensor Forward(Tensor x, ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        Tensor inner; // [n, intermediate]
        if (gate_up_proj is not null)
        {
            var halves = gate_up_proj.Forward(x, batch).chunk(2, -1);
            inner = _act(halves[0]).mul(halves[1]);
        }
        else if (gate_proj is not null)
        {
            inner = _act(gate_proj.Forward(x, batch)).mul(up_proj!.Forward(x, batch));
        }
        else
        {
            inner = _act((c_fc ?? fc1)!.Forward(x, batch));
        }

        return (down_proj ?? c_proj ?? fc2)!.Forward(inner, batch).MoveToOuterDisposeScope(); // [n, hidden]
    }
}
