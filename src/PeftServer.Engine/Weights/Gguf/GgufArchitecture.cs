namespace PeftServer.Engine.Weights.Gguf;

/// <summary>How an architecture of GGUF is called and laid out in Hugging Face's models.</summary>
/// <param name="ModelType"><c>model_type</c>.</param>
/// <param name="Class">The class in <c>architectures</c>.</param>
/// <param name="Body">Name of the body.</param>
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
        ["bloom"] = new(
            "bloom", "BloomForCausalLM", "transformer", "h", GptParts,
            new Dictionary<string, string> { ["token_embd"] = "word_embeddings", ["token_embd_norm"] = "word_embeddings_layernorm", ["output_norm"] = "ln_f" }),
    };

    /// <summary>The <c>model_type</c>s that GGUF files are read as.</summary>
    public static IEnumerable<string> ModelTypes => All.Values.Select(one => one.ModelType).Append("mixtral");

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
            return $"{Body}.{root}{end}";
        }

        var pieces = stem.Split('.');
        return pieces is ["blk", var layer, var part] && int.TryParse(layer, out _) && Parts.TryGetValue(part, out var known)
            ? $"{Body}.{Layers}.{layer}.{known}{end}"
            : null;
    }

    private static GgufArchitecture Llama(string type, string name) => new(type, name, "model", "layers", LlamaParts, LlamaRoots);
}
