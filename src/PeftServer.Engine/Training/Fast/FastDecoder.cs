using PeftServer.Engine.Kernels;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Training.Fast;

/// <summary>
/// A decoder of Llama's shape as the hand-written step sees it: embedding, blocks, norm, head. Llama itself, and those relatives whose
/// differences the step knows: biases of q, k and v, norms over heads, windows, layers that do not turn, fused projections.
/// </summary>
internal sealed record FastDecoder(CausalLanguageModel Model, Embedding Embedding, IReadOnlyList<FastBlock> Blocks, RmsNorm Norm, Linear Head, RotaryEmbedding Rotary)
{
    public int Hidden => Embedding.Width;

    public int Intermediate => Blocks[0].Down.InFeatures;

    public HeadLayout Heads => Blocks[0].Heads;

    /// <summary>Every linear map of the blocks.</summary>
    public IEnumerable<Linear> Projections => Blocks.SelectMany(block => block.Projections);

    /// <summary>The model in these terms; null with the <paramref name="obstacle"/> where something of it is not known here.</summary>
    public static FastDecoder? Of(CausalLanguageModel model, out string obstacle)
    {
        var decoder = model switch
        {
            LlamaForCausalLM llama => new FastDecoder(
                model, llama.model.embed_tokens, [.. llama.model.layers.Select(layer => Block(layer))], llama.model.norm, llama.lm_head, llama.model.Rotary),
            DecoderForCausalLM { Decoder: LlamaVariantModel relative, HasPlainHead: true } other when IsKnown(relative, model.Config) => new FastDecoder(
                model, relative.embed_tokens, [.. relative.layers.Select((layer, index) => Block(layer, relative.Variant, index))], (RmsNorm)relative.norm!, other.Head,
                relative.Rotary),
            _ => null,
        };
        obstacle = decoder is null ? $"{model.Config.ModelType} has no hand-written step yet"
            : decoder.Projections.Any(linear => linear.bias is not null && !decoder.Blocks.Any(block => block.Qkv.Contains(linear))) ? "linear layers beside q, k and v have biases"
            : "";
        return obstacle.Length == 0 ? decoder : null;
    }

    private static bool IsKnown(LlamaVariantModel model, PretrainedConfig config)
    {
        var variant = model.Variant;
        return variant is
        {
            Norms: NormLayout.Before, QkNorm: QkNorm.None or QkNorm.Head, Mlp: MlpForm.Gated or MlpForm.GatedFused, SoftCap: null, InterleavedRotary: false,
            LocalRotary: false, EmbeddingScale: 1, ResidualScale: 1, OutIsDense: false,
        }
            && variant.RotaryDim == variant.HeadDim && config.Text("hidden_act", "silu") == "silu" && model.norm is RmsNorm { HasOffset: false }
            && model.layers.All(layer => layer.input_layernorm is RmsNorm && layer.mlp is VariantMlp);
    }

    private static FastBlock Block(LlamaDecoderLayer layer) => new(
        [layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj], layer.self_attn.o_proj, [layer.mlp.gate_proj, layer.mlp.up_proj],
        layer.mlp.down_proj, layer.input_layernorm, layer.post_attention_layernorm, layer.self_attn.Heads, 1 / Math.Sqrt(layer.self_attn.Heads.HeadDim));

    private static FastBlock Block(VariantLayer layer, LlamaVariant variant, int index)
    {
        var (attention, mlp) = (layer.self_attn, (VariantMlp)layer.mlp);
        return new FastBlock(
            attention.qkv_proj is { } fused ? [fused] : [attention.q_proj!, attention.k_proj!, attention.v_proj!], attention.o_proj!,
            mlp.gate_up_proj is { } both ? [both] : [mlp.gate_proj!, mlp.up_proj!], mlp.down_proj!, (RmsNorm)layer.input_layernorm!,
            (RmsNorm)layer.post_attention_layernorm!, new HeadLayout(variant.Heads, variant.KeyValueHeads, variant.HeadDim),
            variant.Scale ?? 1 / Math.Sqrt(variant.HeadDim))
        {
            QueryNorm = (RmsNorm?)attention.q_norm,
            KeyNorm = (RmsNorm?)attention.k_norm,
            Window = variant.Window(index),
            Turns = variant.Turns(index),
        };
    }
}

/// <summary>A block: the linear maps that share an input stand together, one or several to a product.</summary>
internal sealed record FastBlock(
    IReadOnlyList<Linear> Qkv, Linear O, IReadOnlyList<Linear> GateUp, Linear Down, RmsNorm InputNorm, RmsNorm MiddleNorm, HeadLayout Heads, double Scale)
{
    /// <summary>Norms over each head of q and k, where there are such.</summary>
    public RmsNorm? QueryNorm { get; init; }

    public RmsNorm? KeyNorm { get; init; }

    /// <summary>How many tokens back a token sees, itself included; null: all.</summary>
    public int? Window { get; init; }

    /// <summary>Whether q and k turn with the position.</summary>
    public bool Turns { get; init; } = true;

    public IEnumerable<Linear> Projections => [.. Qkv, O, .. GateUp, Down];
}
