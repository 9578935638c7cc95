namespace PeftServer.Engine.Models;

/// <summary>Llama's relatives, each by what it does otherwise. Facts from transformers' modeling files of the same names.</summary>
internal static class LlamaVariants
{
    public static LlamaVariant Llama(PretrainedConfig c) => Base(c) with
    {
        QkvBias = c.Flag("attention_bias", false),
        OutBias = c.Flag("attention_bias", false),
        MlpBias = c.Flag("mlp_bias", false),
    };

    public static LlamaVariant Mistral(PretrainedConfig c) => Base(c) with { Window = Everywhere(c) };

    public static LlamaVariant Mixtral(PretrainedConfig c)
    {
        RefuseNumber(c, "router_jitter_noise");
        var experts = new ExpertShape(c.Int("hidden_size"), c.Int("intermediate_size"), c.Int("num_local_experts", 8), c.Int("num_experts_per_tok", 2), true, ExpertShape.MixtralNames);
        return Mistral(c) with { Experts = _ => experts };
    }

    public static LlamaVariant Qwen2(PretrainedConfig c) => Base(c) with { QkvBias = true, Window = Qwen(c) };

    public static LlamaVariant Qwen3(PretrainedConfig c) => Llama(c) with { QkNorm = QkNorm.Head, Window = Qwen(c), MlpBias = false };

    public static LlamaVariant Qwen3Moe(PretrainedConfig c)
    {
        var (step, dense) = (c.Int("decoder_sparse_step", 1), c.Ints("mlp_only_layers"));
        var count = c.Int("num_local_experts", c.Int("num_experts", 128));
        var experts = new ExpertShape(
            c.Int("hidden_size"), c.Int("moe_intermediate_size", 768), count, c.Int("num_experts_per_tok", 8), c.Flag("norm_topk_prob", false), ExpertShape.QwenNames);
        return Qwen3(c) with { Experts = index => count > 0 && !dense.Contains(index) && (index + 1) % step == 0 ? experts : null };
    }

    public static LlamaVariant Granite(PretrainedConfig c) => Llama(c) with
    {
        Scale = c.Number("attention_multiplier", 1),
        EmbeddingScale = c.Number("embedding_multiplier", 1),
        ResidualScale = c.Number("residual_multiplier", 1),
    };

    public static LlamaVariant SmolLm3(PretrainedConfig c)
    {
        var (turns, interval) = (c.Ints("no_rope_layers"), c.Int("no_rope_layer_interval", 4)); // 1 says that the layer does turn
        return Llama(c) with
        {
            Turns = index => turns.Count > 0 ? turns[index] != 0 : (index + 1) % interval != 0,
            Window = Qwen(c),
        };
    }

    public static LlamaVariant Olmo2(PretrainedConfig c) => Llama(c) with { Norms = NormLayout.Behind, QkNorm = QkNorm.All, MlpBias = false };

    public static LlamaVariant Cohere(PretrainedConfig c)
    {
        var eps = c.Number("layer_norm_eps", 1e-5);
        var variant = Llama(c);
        return variant with
        {
            Norms = NormLayout.Parallel,
            InterleavedRotary = true,
            Norm = width => new LayerNorm(width, eps, hasBias: false),
            MlpBias = false,
            QkNorm = c.Flag("use_qk_norm", false) ? QkNorm.Head : QkNorm.None,
            NormOfHeads = heads => new HeadTableNorm(heads, variant.HeadDim, eps),
        };
    }

    public static LlamaVariant StableLm(PretrainedConfig c)
    {
        var eps = c.Number("layer_norm_eps", 1e-5);
        var variant = Partial(c, 0.25);
        return variant with
        {
            QkNorm = c.Flag("qk_layernorm", false) ? QkNorm.Head : QkNorm.None,
            NormOfHeads = heads => new HeadNorms(heads, variant.HeadDim, eps),
            QkNormIsLayernorm = true,
            Norm = width => new LayerNorm(width, eps),
            QkvBias = c.Flag("use_qkv_bias", false),
            Norms = c.Flag("use_parallel_residual", false) ? NormLayout.Parallel : NormLayout.Before,
        };
    }

    public static LlamaVariant StarCoder2(PretrainedConfig c)
    {
        var (eps, bias) = (c.Number("norm_epsilon", 1e-5), c.Flag("use_bias", true));
        c.Require("mlp_type", "default", "default");
        c.Require("norm_type", "layer_norm", "layer_norm");
        return Base(c, "gelu_pytorch_tanh") with
        {
            Norm = width => new LayerNorm(width, eps),
            QkvBias = bias,
            OutBias = bias,
            MlpBias = bias,
            Mlp = MlpForm.Cfc,
            Window = Everywhere(c),
        };
    }

    public static LlamaVariant Phi(PretrainedConfig c)
    {
        var eps = c.Number("layer_norm_eps", 1e-5);
        return Partial(c, 0.5, "gelu_new") with
        {
            QkNorm = c.Flag("qk_layernorm", false) ? QkNorm.Head : QkNorm.None,
            QkNormIsLayernorm = true,
            Norm = width => new LayerNorm(width, eps),
            QkvBias = true,
            OutBias = true,
            MlpBias = true,
            Norms = NormLayout.Parallel,
            Mlp = MlpForm.Fc,
            OutIsDense = true,
            FinalLayernorm = true,
        };
    }

    public static LlamaVariant Phi3(PretrainedConfig c) => Partial(c, 1) with { FusedQkv = true, Mlp = MlpForm.GatedFused, Window = Everywhere(c) };

    public static LlamaVariant Gemma(PretrainedConfig c)
    {
        var eps = c.Number("rms_norm_eps", 1e-6);
        Refuse(c, "use_bidirectional_attention");
        var field = c.Has("hidden_activation") ? "hidden_activation" : "hidden_act";

        // Gemma's first configs said "gelu" and meant the approximation; transformers reads them so.
        return Llama(c) with
        {
            HeadDim = c.Int("head_dim", 256),
            RotaryDim = c.Int("head_dim", 256),
            MlpBias = false,
            Act = c.Text(field, "gelu") == "gelu" && c.ModelType == "gemma" ? Activation.TanhGelu : Activation.Of(c, field, "gelu_pytorch_tanh"),
            Norm = width => new RmsNorm(width, eps, offset: true),
            EmbeddingScale = Math.Sqrt(c.Int("hidden_size")),
            ScalesLookup = true,
        };
    }

    public static LlamaVariant Gemma2(PretrainedConfig c) => Gemma(c) with
    {
        Norms = NormLayout.Around,
        Scale = 1 / Math.Sqrt(c.Number("query_pre_attn_scalar", 256)),
        SoftCap = c.Has("attn_logit_softcapping") ? c.Number("attn_logit_softcapping", 50) : null,
        Window = ByType(c, index => index % 2 == 0, 4096),
    };

    public static LlamaVariant Gemma3(PretrainedConfig c)
    {
        var pattern = c.Int("sliding_window_pattern", c.Int("_sliding_window_pattern", 6));
        return Gemma2(c) with { QkNorm = QkNorm.Head, LocalRotary = true, Window = ByType(c, index => (index + 1) % pattern != 0, 4096) };
    }

    /// <summary>Llama's stack with the fields that every relative spells alike.</summary>
    private static LlamaVariant Base(PretrainedConfig c, string act = "silu")
    {
        var (hidden, heads, eps) = (c.Int("hidden_size"), c.Int("num_attention_heads"), c.Number("rms_norm_eps", 1e-6));
        var groups = c.Int("num_key_value_heads", heads);
        if (heads <= 0 || groups <= 0 || heads % groups != 0)
        {
            throw c.Unsupported("num_key_value_heads", groups);
        }

        var headDim = c.Int("head_dim", hidden / heads);
        return new LlamaVariant
        {
            Hidden = hidden,
            Intermediate = c.Int("intermediate_size"),
            Heads = heads,
            KeyValueHeads = groups,
            HeadDim = headDim,
            RotaryDim = headDim,
            Act = Activation.Of(c, "hidden_act", act),
            Norm = width => new RmsNorm(width, eps),
        };
    }

    private static LlamaVariant Partial(PretrainedConfig c, double otherwise, string act = "silu")
    {
        var variant = Base(c, act);
        return variant with { RotaryDim = RotaryEmbedding.TurningDimensions(c, variant.HeadDim, otherwise) };
    }

    private static Func<int, int?> Everywhere(PretrainedConfig c)
    {
        var window = c.Has("sliding_window") ? c.Int("sliding_window") : (int?)null;
        return _ => window;
    }

    private static Func<int, int?> Qwen(PretrainedConfig c)
    {
        var from = c.Int("max_window_layers", 28);
        _ = (c.Texts("layer_types"), c.Has("sliding_window")); // they say nothing where no layer slides
        return c.Flag("use_sliding_window", false) ? ByType(c, index => index >= from, null) : _ => null;
    }

    private static Func<int, int?> ByType(PretrainedConfig c, Func<int, bool> slides, int? otherwise)
    {
        var window = c.Has("sliding_window") ? c.Int("sliding_window") : otherwise;
        var types = c.Texts("layer_types");
        if (types.FirstOrDefault(type => type is not "full_attention" and not "sliding_attention") is { } other)
        {
            throw c.Unsupported("layer_types", other);
        }

        return types.Count > 0 && types.Count != c.Int("num_hidden_layers")
            ? throw c.Unsupported("layer_types", $"a list of {types.Count}")
            : index => (types.Count > 0 ? types[index] == "sliding_attention" : slides(index)) ? window : null;
    }

    private static void RefuseNumber(PretrainedConfig c, string field)
    {
        if (c.Number(field, 0) is var value && value != 0)
        {
            throw c.Unsupported(field, value);
        }
    }

    private static void Refuse(PretrainedConfig c, string flag)
    {
        if (c.Flag(flag, false))
        {
            throw c.Unsupported(flag, true);
        }
    }
}
