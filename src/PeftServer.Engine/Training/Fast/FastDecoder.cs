using PeftServer.Engine.Kernels;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Training.Fast;

/// <summary>
/// A decoder of Llama's shape as the hand-written step sees it: embedding, blocks, norm, head. Llama itself, and those relatives whose
/// differences the step knows; each difference is a field here or in <see cref="FastBlock"/>.
/// </summary>
/// <param name="Model">The model itself.</param>
/// <param name="Embedding">Of its tokens.</param>
/// <param name="Blocks">From the first to the last.</param>
/// <param name="Norm">Behind the last block.</param>
/// <param name="Head">Makes scores.</param>
/// <param name="Rotaries">The angles that blocks turn by: <see cref="FastBlock.Rotary"/> counts them.</param>
internal sealed record FastDecoder(
    CausalLanguageModel Model, Embedding Embedding, IReadOnlyList<FastBlock> Blocks, Site Norm, Linear Head, IReadOnlyList<RotaryEmbedding> Rotaries)
{
    /// <summary>What embedded tokens are multiplied by.</summary>
    public double EmbeddingScale { get; init; } = 1;

    /// <summary>What is done to the head's scores.</summary>
    public ScoreForm Scores { get; init; } = ScoreForm.Plain;

    public int Hidden => Embedding.Width;

    /// <summary>Width of what stands between the maps of a feed-forward, of all the experts of a token together.</summary>
    public int Intermediate => Blocks.Max(block => block.Intermediate);

    /// <summary>Experts that a token goes through; 0: there are none.</summary>
    public int ExpertsPerToken => Blocks.Max(block => block.Experts?.Shape.PerToken ?? 0);

    public HeadLayout Heads => Blocks[0].Heads;

    /// <summary>Every linear map of the blocks.</summary>
    public IEnumerable<Linear> Projections => Blocks.SelectMany(block => block.Projections);

    /// <summary>The model in these terms; null with the <paramref name="obstacle"/> where something of it is not known here.</summary>
    public static FastDecoder? Of(CausalLanguageModel model, out string obstacle)
    {
        var decoder = model switch
        {
            LlamaForCausalLM llama => new FastDecoder(
                model, llama.model.embed_tokens, [.. llama.model.layers.Select(layer => Block(layer))], llama.model.norm, llama.lm_head, [llama.model.Rotary]),
            DecoderForCausalLM { Decoder: LlamaVariantModel relative } other when IsKnown(relative) => new FastDecoder(
                model, relative.embed_tokens, [.. relative.layers.Select((layer, index) => Block(layer, relative.Variant, index))], relative.norm!, other.Head,
                relative.LocalRotary is { } local ? [relative.Rotary, local] : [relative.Rotary])
            {
                EmbeddingScale = relative.Variant.EmbeddingScale,
                Scores = new ScoreForm(other.ScoreScale, other.ScoreCap),
            },
            _ => null,
        };
        obstacle = decoder is null ? $"{model.Config.ModelType} has no hand-written step yet"
            : decoder.Projections.Append(decoder.Head).Any(linear => linear.bias is not null && !decoder.Blocks.Any(block => block.Qkv.Contains(linear)))
                ? "linear layers beside q, k and v have biases"
            : "";
        return obstacle.Length == 0 ? decoder : null;
    }

    private static bool IsKnown(LlamaVariantModel model)
    {
        var variant = model.Variant;
        var isPlainBehind = variant is { Norms: NormLayout.Before, ResidualScale: 1 }; // nothing between a sublayer's answer and the stream
        return variant is { Mlp: MlpForm.Gated or MlpForm.GatedFused, OutIsDense: false } and ({ QkNorm: QkNorm.None } or { NormOfHeads: null }) && GateOf(variant.Act) is not null && model.norm is not null
            && variant.RotaryDim == variant.HeadDim && (variant.ResidualScale == 1 || variant.Norms is NormLayout.Before)
            && model.layers.All(layer => layer.mlp is VariantMlp || (layer.mlp is SparseMoe && isPlainBehind));
    }

    private static GateForm? GateOf(Func<Tensor, Tensor> act) => act == Activation.Silu ? GateForm.Silu : act == Activation.TanhGelu ? GateForm.Gelu : null;

    private static FastBlock Block(LlamaDecoderLayer layer) => new(
        [layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj], layer.self_attn.o_proj, [layer.mlp.gate_proj, layer.mlp.up_proj],
        layer.mlp.down_proj, layer.self_attn.Heads, new AttentionScope(1 / Math.Sqrt(layer.self_attn.Heads.HeadDim)))
    {
        InputNorm = layer.input_layernorm,
        MiddleNorm = layer.post_attention_layernorm,
    };

    private static FastBlock Block(VariantLayer layer, LlamaVariant variant, int index)
    {
        var (attention, mlp, window) = (layer.self_attn, layer.mlp as VariantMlp, variant.Window(index));
        var behind = variant.Norms is NormLayout.Around or NormLayout.Behind;
        return new FastBlock(
            attention.qkv_proj is { } fused ? [fused] : [attention.q_proj!, attention.k_proj!, attention.v_proj!], attention.o_proj!,
            mlp is null ? [] : mlp.gate_up_proj is { } both ? [both] : [mlp.gate_proj!, mlp.up_proj!], mlp?.down_proj,
            new HeadLayout(variant.Heads, variant.KeyValueHeads, variant.HeadDim, variant.InterleavedRotary),
            new AttentionScope(variant.Scale ?? 1 / Math.Sqrt(variant.HeadDim), window, variant.SoftCap))
        {
            Gate = GateOf(variant.Act)!.Value,
            Experts = layer.mlp as SparseMoe,
            InputNorm = layer.input_layernorm,
            MiddleNorm = variant.Norms switch
            {
                NormLayout.Before => layer.post_attention_layernorm,
                NormLayout.Around => layer.pre_feedforward_layernorm,
                NormLayout.Parallel => layer.input_layernorm,
                _ => null,
            },
            AttentionEnd = new SublayerEnd(behind ? layer.post_attention_layernorm : null, variant.ResidualScale),
            MlpEnd = new SublayerEnd(behind ? layer.post_feedforward_layernorm : null, variant.ResidualScale),
            IsParallel = variant.Norms is NormLayout.Parallel,
            QueryNorm = (Site?)attention.q_norm,
            KeyNorm = (Site?)attention.k_norm,
            NormsWholeRows = variant.QkNorm is QkNorm.All,
            Rotary = !variant.Turns(index) ? null : variant.LocalRotary && window is not null ? 1 : 0,
        };
    }
}

/// <summary>A block: the linear maps that share an input stand together, one or several to a product.</summary>
internal sealed record FastBlock(
    IReadOnlyList<Linear> Qkv, Linear O, IReadOnlyList<Linear> GateUp, Linear? Down, HeadLayout Heads, AttentionScope Scope)
{
    public GateForm Gate { get; init; }

    /// <summary>The feed-forward, where it is one of experts and not of <see cref="GateUp"/> and <see cref="Down"/>.</summary>
    public SparseMoe? Experts { get; init; }

    /// <summary>Width of what stands between the maps of the feed-forward, or of one expert.</summary>
    public int FeedForwardWidth => Down?.InFeatures ?? Experts!.Shape.Intermediate;

    /// <summary>The same for all experts of a token together.</summary>
    public int Intermediate => FeedForwardWidth * (Experts?.Shape.PerToken ?? 1);

    /// <summary>Before attention; null: the stream goes in as it is.</summary>
    public Site? InputNorm { get; init; }

    /// <summary>Before the feed-forward; null: the stream goes in as it is.</summary>
    public Site? MiddleNorm { get; init; }

    public SublayerEnd AttentionEnd { get; init; } = SublayerEnd.Plain;

    public SublayerEnd MlpEnd { get; init; } = SublayerEnd.Plain;

    /// <summary>Attention and feed-forward read the same input, and the stream takes both their answers.</summary>
    public bool IsParallel { get; init; }

    /// <summary>Norms of q and k, where there are such.</summary>
    public Site? QueryNorm { get; init; }

    public Site? KeyNorm { get; init; }

    /// <summary>The norms of q and k go over all heads at once, else over each.</summary>
    public bool NormsWholeRows { get; init; }

    /// <summary>By which of the decoder's angles q and k turn with the position; null: they do not.</summary>
    public int? Rotary { get; init; } = 0;

    public IEnumerable<Linear> Projections => Down is null ? [.. Qkv, O] : [.. Qkv, O, .. GateUp, Down];
}

/// <summary>What becomes of the answer of attention or of the feed-forward before the stream takes it: a norm, or a factor.</summary>
internal sealed record SublayerEnd(Site? Norm, double Scale)
{
    public static readonly SublayerEnd Plain = new(null, 1);
}
