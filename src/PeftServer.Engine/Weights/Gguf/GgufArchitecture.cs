namespace PeftServer.Engine.Weights.Gguf;

/// <summary>How an architecture of GGUF is called and laid out in Hugging Face's models.</summary>
/// <param name="ModelType"><c>model_type</c>.</param>
/// <param name="Class">The class in <c>architectures</c>.</param>
/// <param name="Body">Name of the body; empty where its parts have no name before them.</param>
/// <param name="Layers">Name of the list of layers in it.</param>
/// <param name="Parts">Parts of a layer by GGUF's names.</param>
/// <param name="Roots">Tensors outside of the layers, by GGUF's names, under the body.</param>
internal sealed record GgufArchitecture(
    string ModelType, string Class, string Body, string Layers, IReadOnlyDictionary<string, string> Parts, IReadOnlyDictionary<string, string> Roots)
{
    private static readonly Dictionary<string, string> LlamaParts = new()
    {
        ["attn_norm"] = "input_layernorm",
        ["attn_q"] = "self_attn.q_proj",
        ["attn_k"] = "self_attn.k_proj",
        ["attn_v"] = "self_attn.v_proj",
        ["attn_output"] = "self_attn.o_proj",
        ["attn_q_norm"] = "self_attn.q_norm",
        ["attn_k_norm"] = "self_attn.k_norm",
        ["ffn_norm"] = "post_attention_layernorm",
        ["ffn_gate"] = "mlp.gate_proj",
        ["ffn_up"] = "mlp.up_proj",
        ["ffn_down"] = "mlp.down_proj",
        ["ffn_gate_inp"] = "mlp.gate",
    };

    private static readonly Dictionary<string, string> GemmaParts = new(LlamaParts)
    {
        ["ffn_norm"] = "pre_feedforward_layernorm",
        ["post_attention_norm"] = "post_attention_layernorm",
        ["post_ffw_norm"] = "post_feedforward_layernorm",
    };

    private static readonly Dictionary<string, string> LlamaRoots = new() { ["token_embd"] = "embed_tokens", ["output_norm"] = "norm" };

    private static readonly Dictionary<string, string> GptParts = new()
    {
        ["attn_norm"] = "input_layernorm",
        ["attn_qkv"] = "self_attention.query_key_value",
        ["attn_output"] = "self_attention.dense",
        ["ffn_norm"] = "post_attention_layernorm",
        ["ffn_up"] = "mlp.dense_h_to_4h",
        ["ffn_down"] = "mlp.dense_4h_to_h",
    };

    /// <summary>The parts of T5's blocks, by the side they are on.</summary>
    private static readonly Dictionary<string, string> T5Parts = new()
    {
        ["enc.attn_norm"] = "layer.0.layer_norm",
        ["enc.attn_q"] = "layer.0.SelfAttention.q",
        ["enc.attn_k"] = "layer.0.SelfAttention.k",
        ["enc.attn_v"] = "layer.0.SelfAttention.v",
        ["enc.attn_o"] = "layer.0.SelfAttention.o",
        ["enc.attn_rel_b"] = "layer.0.SelfAttention.relative_attention_bias",
        ["enc.ffn_norm"] = "layer.1.layer_norm",
        ["enc.ffn_gate"] = "layer.1.DenseReluDense.wi_0",
        ["enc.ffn_up"] = "layer.1.DenseReluDense.wi_1",
        ["enc.ffn_down"] = "layer.1.DenseReluDense.wo",
        ["dec.attn_norm"] = "layer.0.layer_norm",
        ["dec.attn_q"] = "layer.0.SelfAttention.q",
        ["dec.attn_k"] = "layer.0.SelfAttention.k",
        ["dec.attn_v"] = "layer.0.SelfAttention.v",
        ["dec.attn_o"] = "layer.0.SelfAttention.o",
        ["dec.attn_rel_b"] = "layer.0.SelfAttention.relative_attention_bias",
        ["dec.cross_attn_norm"] = "layer.1.layer_norm",
        ["dec.cross_attn_q"] = "layer.1.EncDecAttention.q",
        ["dec.cross_attn_k"] = "layer.1.EncDecAttention.k",
        ["dec.cross_attn_v"] = "layer.1.EncDecAttention.v",
        ["dec.cross_attn_o"] = "layer.1.EncDecAttention.o",
        ["dec.cross_attn_rel_b"] = "layer.1.EncDecAttention.relative_attention_bias",
        ["dec.ffn_norm"] = "layer.2.layer_norm",
        ["dec.ffn_gate"] = "layer.2.DenseReluDense.wi_0",
        ["dec.ffn_up"] = "layer.2.DenseReluDense.wi_1",
        ["dec.ffn_down"] = "layer.2.DenseReluDense.wo",
    };

    private static readonly Dictionary<string, string> T5Roots = new()
    {
        ["token_embd"] = "shared",
        ["enc.output_norm"] = "encoder.final_layer_norm",
        ["dec.output_norm"] = "decoder.final_layer_norm",
    };

    private static readonly Dictionary<string, GgufArchitecture> All = new()
    {
        ["llama"] = Llama("llama", "LlamaForCausalLM"),
        ["qwen2"] = Llama("qwen2", "Qwen2ForCausalLM"),
        ["qwen3"] = Llama("qwen3", "Qwen3ForCausalLM"),
        ["qwen3moe"] = Llama("qwen3_moe", "Qwen3MoeForCausalLM"),
        ["gemma"] = Llama("gemma", "GemmaForCausalLM"),
        ["gemma2"] = Llama("gemma2", "Gemma2ForCausalLM") with { Parts = GemmaParts },
        ["gemma3"] = Llama("gemma3_text", "Gemma3ForCausalLM") with { Parts = GemmaParts },
        ["stablelm"] = Llama("stablelm", "StableLmForCausalLM"),
        ["phi3"] = Llama("phi3", "Phi3ForCausalLM") with
        {
            Parts = new Dictionary<string, string>(LlamaParts) { ["attn_qkv"] = "self_attn.qkv_proj", ["ffn_up"] = "mlp.gate_up_proj" },
        },
        ["starcoder2"] = Llama("starcoder2", "Starcoder2ForCausalLM") with
        {
            Parts = new Dictionary<string, string>(LlamaParts) { ["ffn_up"] = "mlp.c_fc", ["ffn_down"] = "mlp.c_proj" },
        },
        ["gpt2"] = new(
            "gpt2", "GPT2LMHeadModel", "transformer", "h",
            new Dictionary<string, string>
            {
                ["attn_norm"] = "ln_1",
                ["attn_qkv"] = "attn.c_attn",
                ["attn_output"] = "attn.c_proj",
                ["ffn_norm"] = "ln_2",
                ["ffn_up"] = "mlp.c_fc",
                ["ffn_down"] = "mlp.c_proj",
            },
            new Dictionary<string, string> { ["token_embd"] = "wte", ["position_embd"] = "wpe", ["output_norm"] = "ln_f" }),
        ["falcon"] = new(
            "falcon", "FalconForCausalLM", "transformer", "h", GptParts, new Dictionary<string, string> { ["token_embd"] = "word_embeddings", ["output_norm"] = "ln_f" }),
        ["t5"] = new("t5", "T5ForConditionalGeneration", "", "block", T5Parts, T5Roots),
        ["t5encoder"] = new("t5", "T5EncoderModel", "", "block", T5Parts, T5Roots),
        ["bloom"] = new(
            "bloom", "BloomForCausalLM", "transformer", "h", GptParts,
            new Dictionary<string, string> { ["token_embd"] = "word_embeddings", ["token_embd_norm"] = "word_embeddings_layernorm", ["output_norm"] = "ln_f" }),
    };

    /// <summary>The <c>model_type</c>s that GGUF files are read as.</summary>
    public static IEnumerable<string> ModelTypes => All.Values.Select(one => one.ModelType).Append("mixtral").Distinct();

    /// <summary>The architecture a file names. Throws <see cref="CheckpointException"/> for one that is not known.</summary>
    public static GgufArchitecture Of(string name) => All.TryGetValue(name, out var found)
        ? found
        : throw new CheckpointException($"general.architecture '{name}' is not supported. Supported: {string.Join(", ", All.Keys.Order(StringComparer.Ordinal))}.");

    /// <summary>Hugging Face's name of a tensor; null where the architecture has no such part.</summary>
    public string? NameOf(string tensor)
    {
        var (stem, end) = tensor.LastIndexOf('.') is >= 0 and var dot ? (tensor[..dot], tensor[dot..]) : (tensor, "");
        if (stem == "output")
        {
            return $"lm_head{end}";
        }

        if (Roots.TryGetValue(stem, out var root))
        {
            return Body.Length == 0 ? $"{root}{end}" : $"{Body}.{root}{end}";
        }

        var pieces = stem.Split('.');
        if (pieces is ["enc" or "dec", "blk", var block, var name] && int.TryParse(block, out _) && Parts.TryGetValue($"{pieces[0]}.{name}", out var inner))
        {
            return $"{pieces[0]}oder.{Layers}.{block}.{inner}{end}";
        }

        return pieces is ["blk", var layer, var part] && int.TryParse(layer, out _) && Parts.TryGetValue(part, out var known)
            ? $"{Body}.{Layers}.{layer}.{known}{end}"
            : null;
    }

    private static GgufArchitecture Llama(string type, string name) => new(type, name, "model", "layers", LlamaParts, LlamaRoots);
}
