using System.Text.Json.Nodes;
using PeftServer.Engine.Native;

namespace PeftServer.Engine.Weights.Gguf;

/// <summary>The metadata of a GGUF file as the <c>config.json</c> that the model was converted from, and the way back for its tensors.</summary>
internal sealed class GgufConfig
{
    private readonly GgufFile _file;
    private readonly HashSet<string> _read = [];
    private readonly JsonObject _fields = [];

    private GgufConfig(GgufFile file)
    {
        _file = file;
        ArchitectureName = file.Metadata.TryGetValue("general.architecture", out var name) && name is string text
            ? text
            : throw new CheckpointException("The GGUF file does not name its architecture (general.architecture).");
        Architecture = GgufArchitecture.Of(ArchitectureName);
        Heads = (int)Number("attention.head_count");
        KeyValueHeads = (int)Number("attention.head_count_kv", Heads);
        Hidden = (int)Number("embedding_length");
        if (Heads <= 0 || KeyValueHeads <= 0 || Hidden <= 0)
        {
            throw new CheckpointException($"{ArchitectureName}.attention.head_count, head_count_kv and embedding_length must be above 0.");
        }

        Fill();
        RefuseUnread();
    }

    public string ArchitectureName { get; }

    public GgufArchitecture Architecture { get; }

    private bool IsT5 => ArchitectureName is "t5" or "t5encoder";

    private int Heads { get; }

    private int KeyValueHeads { get; }

    private int Hidden { get; }

    /// <summary>config.json's text.</summary>
    public string Json => _fields.ToJsonString();

    public static GgufConfig Read(GgufFile file) => new(file);

    /// <summary>Hugging Face's name of a tensor.</summary>
    public string? NameOf(string tensor)
    {
        // T5's feed-forward part has one way up, or one that is gated.
        if (IsT5 && tensor.EndsWith(".ffn_up.weight", StringComparison.Ordinal) && !Has(tensor.Replace("ffn_up", "ffn_gate", StringComparison.Ordinal)))
        {
            return Architecture.NameOf(tensor)!.Replace("wi_1", "wi", StringComparison.Ordinal);
        }

        // Falcon with grouped heads norms what goes into each part by itself.
        var pieces = tensor.Split('.');
        return ArchitectureName == "falcon" && pieces is ["blk", var layer, "attn_norm" or "attn_norm_2", var end] && Has("blk.0.attn_norm_2.weight")
            ? $"transformer.h.{layer}.{(pieces[2] == "attn_norm" ? "ln_mlp" : "ln_attn")}.{end}"
            : Architecture.NameOf(tensor);
    }

    /// <summary>What llama.cpp changed about a tensor, changed back.</summary>
    public Tensor Restore(string name, Tensor tensor)
    {
        using var scope = NewDisposeScope();
        var part = name.Split('.') is ["blk", _, var middle, ..] ? middle : "";
        return (ArchitectureName switch
        {
            "llama" when part is "attn_q" or "attn_k" => Ungrouped(tensor, part == "attn_q" ? Heads : KeyValueHeads),
            "gemma" or "gemma2" or "gemma3" when name.EndsWith("norm.weight", StringComparison.Ordinal) => tensor.Minus(ones_like(tensor)),
            "gpt2" when part is "attn_qkv" or "attn_output" or "ffn_up" or "ffn_down" && tensor.dim() == 2 => tensor.t().contiguous(),
            "bloom" when part is "attn_qkv" => tensor.view([3, Heads, -1, .. tensor.shape[1..]]).transpose(0, 1).reshape(tensor.shape),
            "falcon" when part is "attn_qkv" => Grouped(tensor),
            _ => tensor.alias(),
        }).MoveToOuterDisposeScope();
    }

    // llama.cpp turns neighbouring dimensions, Hugging Face the halves of a head.
    private static Tensor Ungrouped(Tensor tensor, int heads) => tensor.view([heads, tensor.shape[0] / heads / 2, 2, .. tensor.shape[1..]]).transpose(1, 2).reshape(tensor.shape);

    // Queries, keys and values one after another, back to a group of queries with its key and value.
    private Tensor Grouped(Tensor tensor)
    {
        var dim = Hidden / Heads;
        var parts = tensor.split([Heads * dim, KeyValueHeads * dim, KeyValueHeads * dim], 0);
        long[] Shape(int heads) => [KeyValueHeads, heads, dim, .. tensor.shape[1..]];
        return cat([parts[0].view(Shape(Heads / KeyValueHeads)), parts[1].view(Shape(1)), parts[2].view(Shape(1))], 1).reshape(tensor.shape);
    }

    private void Fill()
    {
        _fields["model_type"] = Architecture.ModelType;
        _fields["architectures"] = new JsonArray(Architecture.Class);
        _fields["vocab_size"] = Size("token_embd.weight", 0);
        _fields["tie_word_embeddings"] = !Has("output.weight");
        _ = Number("vocab_size", 0);
        foreach (var (key, field) in new[] { ("bos", "bos_token_id"), ("eos", "eos_token_id"), ("padding", "pad_token_id") })
        {
            if (_file.Metadata.TryGetValue($"tokenizer.ggml.{key}_token_id", out var id) && id is long number)
            {
                _fields[field] = number;
            }
        }

        switch (ArchitectureName)
        {
            case "gpt2":
                Set(("n_layer", Number("block_count")), ("n_positions", Size("position_embd.weight", 0)), ("n_embd", Hidden), ("n_head", Heads));
                Set(("n_inner", Number("feed_forward_length", 4 * Hidden)));
                _fields["layer_norm_epsilon"] = Real("attention.layer_norm_epsilon", 1e-5);
                _fields["activation_function"] = "gelu_new";
                _ = Number("context_length", 0);
                break;
            case "bloom":
                Set(("n_layer", Number("block_count")), ("hidden_size", Hidden), ("n_head", Heads), ("seq_length", Number("context_length", 2048)));
                _fields["layer_norm_epsilon"] = Real("attention.layer_norm_epsilon", 1e-5);
                _ = (Number("feed_forward_length", 0), Real("attention.max_alibi_bias", 8));
                break;
            case "t5" or "t5encoder":
                FillT5();
                break;
            default:
                FillLikeLlama();
                break;
        }
    }

    private void FillLikeLlama()
    {
        Set(
            ("hidden_size", Hidden), ("num_hidden_layers", Number("block_count")), ("num_attention_heads", Heads), ("num_key_value_heads", KeyValueHeads),
            ("max_position_embeddings", Number("context_length", 2048)), ("intermediate_size", Number("feed_forward_length", 4 * Hidden)));
        _fields["rms_norm_eps"] = Real("attention.layer_norm_rms_epsilon", 1e-6);
        var headDim = Number("attention.key_length", ArchitectureName == "llama" ? Number("rope.dimension_count", Hidden / Heads) : Hidden / Heads);
        var turning = Number("rope.dimension_count", headDim);
        if (Number("attention.value_length", headDim) != headDim)
        {
            throw new CheckpointException($"{ArchitectureName}.attention.value_length is not supported where it differs from key_length.");
        }

        _fields["rope_parameters"] = Rope();
        switch (ArchitectureName)
        {
            case "falcon":
                FillFalcon();
                return;
            case "starcoder2":
                _fields["norm_epsilon"] = Real("attention.layer_norm_epsilon", 1e-5);
                _fields.Remove("rms_norm_eps");
                return;
            case "stablelm":
                _fields["layer_norm_eps"] = Real("attention.layer_norm_epsilon", 1e-5);
                _fields.Remove("rms_norm_eps");
                _fields["use_qkv_bias"] = Has("blk.0.attn_q.bias");
                _fields["use_parallel_residual"] = !Has("blk.0.ffn_norm.weight");
                _fields["rope_parameters"]!["partial_rotary_factor"] = (double)turning / headDim;
                _ = Flag("use_parallel_residual");
                return;
            case "phi3":
                _fields["rope_parameters"]!["partial_rotary_factor"] = (double)turning / headDim;
                break;
            case "llama":
                _fields["head_dim"] = headDim;
                _fields["attention_bias"] = Has("blk.0.attn_q.bias");
                _fields["mlp_bias"] = Has("blk.0.ffn_up.bias");
                FillMixtral();
                return;
            case "qwen3moe":
                Set(("num_experts", Number("expert_count")), ("num_experts_per_tok", Number("expert_used_count")), ("moe_intermediate_size", Number("expert_feed_forward_length")));
                _fields["norm_topk_prob"] = true;
                break;
            case "gemma2" or "gemma3":
                FillGemma(headDim);
                break;
        }

        if (ArchitectureName is not "phi3")
        {
            _fields["head_dim"] = headDim;
        }

        if (Number("attention.sliding_window", 0) is > 0 and var window)
        {
            _fields["sliding_window"] = window;
        }
    }

    private void FillT5()
    {
        var (layers, width) = (Number("block_count"), Number("attention.key_length", 64));
        Set(
            ("d_model", Hidden), ("num_layers", layers), ("num_decoder_layers", Number("decoder_block_count", layers)), ("num_heads", Heads), ("d_kv", width),
            ("d_ff", Number("feed_forward_length")), ("n_positions", Number("context_length", 512)), ("relative_attention_num_buckets", Number("attention.relative_buckets_count", 32)),
            ("decoder_start_token_id", Number("decoder_start_token_id", 0)));
        if (Number("attention.value_length", width) != width)
        {
            throw new CheckpointException($"{ArchitectureName}.attention.value_length is not supported where it differs from key_length.");
        }

        _fields["layer_norm_epsilon"] = Real("attention.layer_norm_rms_epsilon", Real("attention.layer_norm_epsilon", 1e-6));
        _ = Real("attention.layer_norm_epsilon", 1e-6);
        _fields["feed_forward_proj"] = Has("enc.blk.0.ffn_gate.weight") ? "gated-gelu" : "relu";
        if (ArchitectureName == "t5encoder")
        {
            _fields.Remove("num_decoder_layers");
        }
    }

    private void FillMixtral()
    {
        if (Number("expert_count", 0) is > 0 and var count)
        {
            (_fields["model_type"], _fields["architectures"]) = ("mixtral", new JsonArray("MixtralForCausalLM"));
            Set(("num_local_experts", count), ("num_experts_per_tok", Number("expert_used_count")));
            if (Number("expert_feed_forward_length", 0) is > 0 and var inner)
            {
                _fields["intermediate_size"] = inner;
            }

            _fields.Remove("attention_bias");
            _fields.Remove("mlp_bias");
        }
        else
        {
            _ = Number("expert_used_count", 0);
        }
    }

    // The converter does not keep the scale of the scores: llama.cpp knows it by the size of the model.
    private void FillGemma(long headDim)
    {
        var isLargest = Number("block_count") == (ArchitectureName == "gemma2" ? 46 : 62);
        _fields["query_pre_attn_scalar"] = isLargest ? Hidden / Heads : headDim;
        _fields["hidden_activation"] = "gelu_pytorch_tanh";
        if (ArchitectureName == "gemma2")
        {
            _fields["attn_logit_softcapping"] = Real("attn_logit_softcapping", 50);
            _fields["final_logit_softcapping"] = Real("final_logit_softcapping", 30);
            return;
        }

        switch (Metadata("attention.sliding_window_pattern"))
        {
            case long every:
                _fields["sliding_window_pattern"] = every;
                break;
            case List<bool> slides:
                _fields["layer_types"] = new JsonArray([.. slides.Select(slide => (JsonNode)(slide ? "sliding_attention" : "full_attention"))]);
                break;
        }

        var everywhere = _fields["rope_parameters"]!.DeepClone();
        _fields["rope_parameters"] = new JsonObject
        {
            ["full_attention"] = everywhere,
            ["sliding_attention"] = new JsonObject { ["rope_type"] = "default", ["rope_theta"] = Real("rope.freq_base_swa", 10_000) },
        };
    }

    private void FillFalcon()
    {
        _fields.Remove("rms_norm_eps");
        _fields["layer_norm_epsilon"] = Real("attention.layer_norm_epsilon", 1e-5);
        _fields["ffn_hidden_size"] = Number("feed_forward_length", 4 * Hidden);
        _fields["new_decoder_architecture"] = Has("blk.0.attn_norm_2.weight");
        _fields["multi_query"] = KeyValueHeads == 1;
        _fields["num_kv_heads"] = KeyValueHeads;
        (_fields["parallel_attn"], _fields["bias"], _fields["alibi"]) = (true, false, false);
        _fields.Remove("intermediate_size");
        _fields.Remove("num_key_value_heads");
    }

    private JsonObject Rope()
    {
        var rope = new JsonObject { ["rope_theta"] = Real("rope.freq_base", 10_000), ["rope_type"] = "default" };
        var type = Metadata("rope.scaling.type") as string ?? (Real("rope.scale_linear", 1) != 1 ? "linear" : "none");
        var (factor, original) = (Real("rope.scaling.factor", Real("rope.scale_linear", 1)), Number("rope.scaling.original_context_length", 0));
        _ = (Flag("rope.scaling.finetuned"), Real("rope.scale_linear", 1), Real("rope.scaling.attn_factor", 1));
        if (Has("rope_freqs.weight"))
        {
            return Divided(rope, "rope_freqs.weight", "rope_freqs.weight", 1, 1); // Llama 3's scaling, written out
        }

        if (Has("rope_factors_long.weight"))
        {
            return Divided(rope, "rope_factors_short.weight", "rope_factors_long.weight", original, Metadata("rope.scaling.attn_factor") is null ? null : Real("rope.scaling.attn_factor", 1));
        }

        switch (type)
        {
            case "none" or "longrope":
                return rope;
            case "linear":
                (rope["rope_type"], rope["factor"]) = ("linear", factor);
                return rope;
            case "yarn":
                (rope["rope_type"], rope["factor"]) = ("yarn", factor);
                if (original > 0)
                {
                    rope["original_max_position_embeddings"] = original;
                }

                foreach (var (key, field) in (ReadOnlySpan<(string, string)>)[("yarn_beta_fast", "beta_fast"), ("yarn_beta_slow", "beta_slow")])
                {
                    if (Metadata($"rope.scaling.{key}") is not null)
                    {
                        rope[field] = Real($"rope.scaling.{key}", 1);
                    }
                }

                if (Metadata("rope.scaling.attn_factor") is not null)
                {
                    rope["attention_factor"] = Real("rope.scaling.attn_factor", 1);
                }

                return rope;
            default:
                throw new CheckpointException($"{ArchitectureName}.rope.scaling.type '{type}' is not supported.");
        }
    }

    private JsonObject Divided(JsonObject rope, string near, string far, long original, double? attention)
    {
        JsonArray Factors(string name) => [.. _file.Floats(name).Select(factor => float.IsFinite(factor)
            ? (JsonNode)JsonValue.Create((double)factor)
            : throw new CheckpointException($"{name} holds values that are not finite."))];

        (rope["rope_type"], rope["short_factor"], rope["long_factor"]) = ("longrope", Factors(near), Factors(far));
        if (original > 0)
        {
            rope["original_max_position_embeddings"] = original;
        }

        if (attention is { } factor)
        {
            rope["attention_factor"] = factor;
        }

        return rope;
    }

    private void Set(params ReadOnlySpan<(string Field, long Value)> fields)
    {
        foreach (var (field, value) in fields)
        {
            _fields[field] = value;
        }
    }

    private bool Has(string tensor) => _file.Tensors.ContainsKey(tensor);

    private long Size(string tensor, int dimension) => _file.Tensors.TryGetValue(tensor, out var found) && found.Shape.Count > dimension
        ? found.Shape[dimension]
        : throw new CheckpointException($"The GGUF file has no tensor '{tensor}'.");

    private object? Metadata(string key)
    {
        _read.Add(key);
        return _file.Metadata.GetValueOrDefault($"{ArchitectureName}.{key}");
    }

    private bool Flag(string key) => Metadata(key) as bool? ?? false;

    private double Real(string key, double otherwise) => Metadata(key) switch
    {
        null => otherwise,
        double number when double.IsFinite(number) => number,
        long number => number,
        var other => throw new CheckpointException($"{ArchitectureName}.{key} is {other}, but must be a number."),
    };

    private long Number(string key, long? otherwise = null) => Metadata(key) switch
    {
        null => otherwise ?? throw new CheckpointException($"{ArchitectureName}.{key} is missing."),
        long number and >= 0 and <= int.MaxValue => number,
        List<long> { Count: > 0 } each when each.TrueForAll(one => one == each[0]) => each[0],
        var other => throw new CheckpointException($"{ArchitectureName}.{key} is {(other is List<long> ? "different for each layer" : other)}, which is not supported."),
    };

    /// <summary>A value of the architecture that nobody read would be computed without.</summary>
    private void RefuseUnread()
    {
        foreach (var (key, value) in _file.Metadata.Where(entry => entry.Key.StartsWith($"{ArchitectureName}.", StringComparison.Ordinal)))
        {
            var name = key[(ArchitectureName.Length + 1)..];
            if (!_read.Contains(name) && name is not ("tensor_data_layout" or "attention.causal") && value is not (false or 0L or 0.0))
            {
                throw new CheckpointException($"{key} = {value} is not supported; this model would be computed without it.");
            }
        }
    }
}
