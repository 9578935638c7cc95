using PeftServer.Engine.Kernels;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Training.Fast;

/// <summary>Every family that the hand-written step knows in its terms: what <see cref="FastDecoder"/> and <see cref="FastBlock"/> say of each.</summary>
internal static class FastFamilies
{
    /// <summary>The model in these terms; null where something of it is not known.</summary>
    public static FastDecoder? Find(CausalLanguageModel model) => model switch
    {
        LlamaForCausalLM llama => new FastDecoder(
            model, llama.model.embed_tokens, [.. llama.model.layers.Select(layer => Block(layer))], llama.model.norm, llama.lm_head, [llama.model.Rotary]),
        DecoderForCausalLM other => Of(other) is { } decoder ? decoder with { Scores = new ScoreForm(other.ScoreScale, other.ScoreCap) } : null,
        _ => null,
    };

    private static FastDecoder? Of(DecoderForCausalLM model) => model.Decoder switch
    {
        LlamaVariantModel relative when IsKnown(relative) => new FastDecoder(
            model, relative.embed_tokens, [.. relative.layers.Select((layer, index) => Block(layer, relative.Variant, index))], (relative.norm ?? relative.final_layernorm)!, model.Head,
            relative.LocalRotary is { } local ? [relative.Rotary, local] : [relative.Rotary])
        {
            EmbeddingScale = relative.Variant.EmbeddingScale,
        },
        GptNeoXModel neoX when neoX.layers.All(layer => GateOf(layer.mlp.Act) is not null) => new FastDecoder(
            model, neoX.embed_in, [.. neoX.layers.Select(layer => Block(layer, neoX.Rotary))], neoX.final_layer_norm, model.Head, [neoX.Rotary]),
        GptJModel gptJ when gptJ.h.All(block => GateOf(block.mlp.Act) is not null) => new FastDecoder(
            model, gptJ.wte, [.. gptJ.h.Select(block => Block(block, gptJ.Rotary))], gptJ.ln_f, model.Head, [gptJ.Rotary]),
        Gpt2Model gpt2 when gpt2.h.All(block => GateOf(block.mlp.Act) is not null) => new FastDecoder(
            model, gpt2.wte, [.. gpt2.h.Select(Block)], gpt2.ln_f, model.Head, [])
        {
            Positions = gpt2.wpe,
        },
        OptModel { decoder: { project_in: null, final_layer_norm: { } norm } opt } when opt.layers.All(layer => layer.NormsBefore && GateOf(layer.Act) is not null) => new FastDecoder(
            model, opt.embed_tokens, [.. opt.layers.Select(Block)], norm, model.Head, [])
        {
            Positions = opt.embed_positions,
            FirstPosition = OptDecoder.FirstPosition,
        },
        FalconModel { Rotary: { } rotary } falcon when falcon.h.All(IsKnown) => new FastDecoder(
            model, falcon.word_embeddings, [.. falcon.h.Select(Block)], falcon.ln_f, model.Head, [rotary]),
        _ => null,
    };

    private static bool IsKnown(LlamaVariantModel model)
    {
        var variant = model.Variant;
        var isPlainBehind = variant is { Norms: NormLayout.Before, ResidualScale: 1 }; // nothing between a sublayer's answer and the stream
        return GateOf(variant.Act) is not null && (variant.ResidualScale == 1 || variant.Norms is NormLayout.Before)
            && model.layers.All(layer => layer.self_attn is { q_norm: null or RmsNorm, q_layernorm: null } && (layer.mlp is VariantMlp || (layer.mlp is SparseMoe && isPlainBehind)));
    }

    /// <summary>Several groups of heads, each with queries, a key and a value of its own, lie in no order that the kernels know.</summary>
    private static bool IsKnown(FalconLayer layer) => GateOf(layer.mlp.Act) is not null && (layer.self_attention.Groups == 1 || layer.self_attention.Groups == layer.self_attention.Heads);

    private static GateForm? GateOf(Func<Tensor, Tensor> act) =>
        act == Activation.Silu ? GateForm.Silu
        : act == Activation.TanhGelu ? GateForm.Gelu
        : act == Activation.Gelu ? GateForm.ExactGelu
        : act == Activation.Relu ? GateForm.Relu
        : null;

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
        Projection[] gateUp = mlp is null ? [] : mlp.gate_proj is { } gate ? [gate, mlp.up_proj!] : [(mlp.gate_up_proj ?? mlp.c_fc ?? mlp.fc1)!];
        return new FastBlock(
            attention.qkv_proj is { } fused ? [fused] : [attention.q_proj!, attention.k_proj!, attention.v_proj!], (attention.o_proj ?? attention.dense)!, gateUp,
            mlp?.down_proj ?? mlp?.c_proj ?? mlp?.fc2,
            new HeadLayout(variant.Heads, variant.KeyValueHeads, variant.HeadDim, variant.InterleavedRotary) { Turning = variant.RotaryDim },
            new AttentionScope(variant.Scale ?? 1 / Math.Sqrt(variant.HeadDim), window, variant.SoftCap))
        {
            Gate = GateOf(variant.Act)!.Value,
            IsGated = variant.Mlp is MlpForm.Gated or MlpForm.GatedFused,
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

    private static FastBlock Block(GptNeoXLayer layer, RotaryEmbedding rotary)
    {
        var attention = layer.attention;
        var heads = new HeadLayout(attention.Heads, attention.Heads, attention.HeadDim) { Turning = rotary.Dimensions, HeadByHead = true };
        return Plain([attention.query_key_value], attention.dense, layer.mlp.dense_h_to_4h, layer.mlp.dense_4h_to_h, heads, layer.mlp.Act) with
        {
            InputNorm = layer.input_layernorm,
            MiddleNorm = layer.post_attention_layernorm,
            IsParallel = layer.IsParallel,
        };
    }

    private static FastBlock Block(GptJBlock block, RotaryEmbedding rotary)
    {
        var attention = block.attn;
        var heads = new HeadLayout(attention.Heads, attention.Heads, attention.q_proj.OutFeatures / attention.Heads, SideBySide: true) { Turning = rotary.Dimensions };
        return Plain([attention.q_proj, attention.k_proj, attention.v_proj], attention.out_proj, block.mlp.fc_in, block.mlp.fc_out, heads, block.mlp.Act) with
        {
            InputNorm = block.ln_1,
            MiddleNorm = block.ln_1,
            IsParallel = true,
        };
    }

    private static FastBlock Block(Gpt2Block block)
    {
        var attention = block.attn;
        var heads = new HeadLayout(attention.Heads, attention.Heads, attention.HeadDim);
        return Plain([attention.c_attn], attention.c_proj, block.mlp.c_fc, block.mlp.c_proj, heads, block.mlp.Act) with
        {
            Scope = new AttentionScope(attention.Scale),
            InputNorm = block.ln_1,
            MiddleNorm = block.ln_2,
            Rotary = null,
        };
    }

    private static FastBlock Block(OptLayer layer)
    {
        var attention = layer.self_attn;
        var heads = new HeadLayout(attention.Heads, attention.Heads, attention.HeadDim);
        return Plain([attention.q_proj, attention.k_proj, attention.v_proj], attention.out_proj, layer.fc1, layer.fc2, heads, layer.Act) with
        {
            InputNorm = layer.self_attn_layer_norm,
            MiddleNorm = layer.final_layer_norm,
            Rotary = null,
        };
    }

    private static FastBlock Block(FalconLayer layer)
    {
        var attention = layer.self_attention;
        var heads = new HeadLayout(attention.Heads, attention.Groups, attention.HeadDim) { HeadByHead = attention.Groups == attention.Heads && attention.Heads > 1 };
        return Plain([attention.query_key_value], attention.dense, layer.mlp.dense_h_to_4h, layer.mlp.dense_4h_to_h, heads, layer.mlp.Act) with
        {
            InputNorm = layer.ln_attn ?? layer.input_layernorm,
            MiddleNorm = layer.ln_mlp ?? layer.post_attention_layernorm ?? layer.input_layernorm,
            IsParallel = layer.IsParallel,
        };
    }

    /// <summary>A feed-forward without gate behind attention that sees all before it.</summary>
    private static FastBlock Plain(IReadOnlyList<Projection> qkv, Projection o, Projection up, Projection down, HeadLayout heads, Func<Tensor, Tensor> act) =>
        new(qkv, o, [up], down, heads, new AttentionScope(1 / Math.Sqrt(heads.HeadDim)))
        {
            Gate = GateOf(act)!.Value,
            IsGated = false,
        };
}
