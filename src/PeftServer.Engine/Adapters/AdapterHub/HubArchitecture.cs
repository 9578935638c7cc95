using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters.AdapterHub;

/// <summary>What the library calls the parts of a model; a model that is not listed here, its adapters do not fit.</summary>
/// <param name="Base">Name of the body in models with a head; empty where its parts stand at the root.</param>
/// <param name="Query">Name of the query projection.</param>
/// <param name="Key">Name of the key projection.</param>
/// <param name="Value">Name of the value projection.</param>
/// <param name="Intermediate">What <c>intermediate_lora</c> means.</param>
/// <param name="Output">What <c>output_lora</c> means.</param>
/// <param name="IsPlugin">
/// Whether the library reaches the model by hooks: then it undoes invertible adapters before a static head too, has no prefixes, and adds the
/// residual itself, whatever an adapter says.
/// </param>
/// <param name="NormsBefore">Whether blocks begin with a norm, so that none stands where they add to the stream.</param>
internal sealed record HubArchitecture(
    string Base, string Query, string Key, string Value, string Intermediate, string Output, bool IsPlugin = false, bool NormsBefore = true)
{
    private static readonly HubArchitecture Bert = new("bert", "self.query", "self.key", "self.value", ".intermediate.dense", ".output.dense", NormsBefore: false);
    private static readonly HubArchitecture Llama = new("model", "q_proj", "k_proj", "v_proj", "mlp.down_proj", "mlp.up_proj");
    private static readonly HubArchitecture Plugin = Llama with { Intermediate = "mlp.up_proj", Output = "mlp.down_proj", IsPlugin = true };

    private static readonly Dictionary<string, HubArchitecture> Known = new()
    {
        ["bert"] = Bert,
        ["roberta"] = Bert with { Base = "roberta" },
        ["electra"] = Bert with { Base = "electra" },
        ["deberta-v2"] = Bert with { Base = "deberta", Query = "self.query_proj", Key = "self.key_proj", Value = "self.value_proj" },
        ["distilbert"] = new("distilbert", "attention.q_lin", "attention.k_lin", "attention.v_lin", "ffn.lin1", "ffn.lin2", NormsBefore: false),
        ["gpt2"] = new("transformer", "c_attn", "c_attn", "c_attn", "mlp.c_fc", "mlp.c_proj"),
        ["gptj"] = new("transformer", "q_proj", "k_proj", "v_proj", "mlp.fc_in", "mlp.fc_out"),
        ["llama"] = Llama,
        ["mistral"] = Llama,
        ["qwen2"] = Plugin,
        ["qwen3"] = Plugin,
        ["bart"] = new("model", ".q_proj", ".k_proj", ".v_proj", ".fc1", ".fc2", NormsBefore: false),
        ["t5"] = new("", "Attention.q", "Attention.k", "Attention.v", "DenseReluDense.wi|DenseReluDense.wi_1", "DenseReluDense.wo"),
        ["mt5"] = new("", "Attention.q", "Attention.k", "Attention.v", "DenseReluDense.wi|DenseReluDense.wi_1", "DenseReluDense.wo"),
    };

    /// <summary>What stands before the paths of the body: <c>bert.</c>, or nothing in a bare model.</summary>
    public string Root { get; private init; } = "";

    /// <summary>Whether there are an encoder and a decoder.</summary>
    public bool HasDecoder { get; private init; }

    /// <summary>The parts of <paramref name="model"/>. Throws <see cref="AdapterException"/> for one that the library does not know.</summary>
    public static HubArchitecture Of(PretrainedModel model)
    {
        if (!Known.TryGetValue(model.Config.ModelType, out var known))
        {
            throw new AdapterException(
                "peft_type", $"ADAPTERS does not know {model.Config.ModelType}. It knows {string.Join(", ", Known.Keys)}; use LORA or another PEFT method here.");
        }

        var root = known.Base + ".";
        return known with { HasDecoder = model is Seq2SeqLanguageModel, Root = known.Base.Length > 0 && model.Modules().Any(module => module.Path.StartsWith(root, StringComparison.Ordinal)) ? root : "" };
    }

    /// <summary>Whether a projection goes by a name of this table; several are apart by |.</summary>
    public bool IsNamed(Site site, string name) =>
        Array.Exists(name.Split('|'), one => site.Path.EndsWith(one, StringComparison.Ordinal)) && !site.Path.EndsWith("attention.output.dense", StringComparison.Ordinal);

    /// <summary>Whether a projection makes queries.</summary>
    public bool MakesQueries(Projection site) => IsNamed(site, Query);

    /// <summary>What the attention of a projection looks at.</summary>
    public AttentionKind AttentionOf(Projection site) =>
        site.Path.Contains("EncDecAttention", StringComparison.Ordinal) || site.Path.Contains("encoder_attn", StringComparison.Ordinal) ? AttentionKind.Cross
        : HasDecoder && !site.Path.Contains("decoder.", StringComparison.Ordinal) ? AttentionKind.Encoder
        : AttentionKind.Self;

    /// <summary>What the library calls the prefix of a kind of attention.</summary>
    public string PrefixName(AttentionKind kind) => kind switch
    {
        AttentionKind.Encoder => "encoder_prefix",
        AttentionKind.Cross => "cross_prefix",
        _ when Base == "distilbert" => "self",
        _ => "self_prefix",
    };

    /// <summary>Heads of keys, and the width of one.</summary>
    public (int Heads, int Width) KeyHeads(PretrainedConfig config, AttentionKind kind)
    {
        var side = kind is AttentionKind.Encoder ? "encoder" : "decoder";
        int First(params string[] names) => config.Int(names.FirstOrDefault(config.Has) ?? names[0]);
        var heads = First($"{side}_attention_heads", "num_attention_heads", "n_head", "n_heads", "num_heads");
        var width = config.Has("head_dim") ? config.Int("head_dim") : config.Has("d_kv") ? config.Int("d_kv") : First("hidden_size", "n_embd", "d_model", "dim") / heads;
        return (config.Has("num_key_value_heads") ? config.Int("num_key_value_heads") : heads, width);
    }

    /// <summary>Which of q, k and v a projection makes; null: none.</summary>
    public string? Matrix(Site site) => IsNamed(site, Query) ? "q" : IsNamed(site, Key) ? "k" : IsNamed(site, Value) ? "v" : null;

    /// <summary>The module that the adapters of a site belong to: they are its <c>adapters</c>.</summary>
    public static string PlaceOf(ResidualSite site) => site.Path.EndsWith(".adapters", StringComparison.Ordinal) ? site.Path[..^".adapters".Length] : site.Path;
}
