using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters.AdapterHub;

/// <summary>What the library calls the parts of a model; a model that is not listed here, its adapters do not fit.</summary>
/// <param name="Base">Name of the body in models with a head; empty where its parts stand at the root.</param>
/// <param name="Query">Name of the query projection.</param>
/// <param name="Key">Name of the key projection.</param>
/// <param name="Value">Name of the value projection.</param>
/// <param name="Intermediate">What <c>intermediate_lora</c> means.</param>
/// <param name="Output">What <c>output_lora</c> means.</param>
/// <param name="InvertsOutput">Whether invertible adapters are undone before a static head too.</param>
internal sealed record HubArchitecture(
    string Base, string Query, string Key, string Value, string Intermediate, string Output, bool InvertsOutput = false)
{
    private static readonly HubArchitecture Bert = new("bert", "self.query", "self.key", "self.value", ".intermediate.dense", ".output.dense");
    private static readonly HubArchitecture Llama = new("model", "q_proj", "k_proj", "v_proj", "mlp.down_proj", "mlp.up_proj");
    private static readonly HubArchitecture Plugin = Llama with { Intermediate = "mlp.up_proj", Output = "mlp.down_proj", InvertsOutput = true };

    private static readonly Dictionary<string, HubArchitecture> Known = new()
    {
        ["bert"] = Bert,
        ["roberta"] = Bert with { Base = "roberta" },
        ["electra"] = Bert with { Base = "electra" },
        ["deberta-v2"] = Bert with { Base = "deberta", Query = "self.query_proj", Key = "self.key_proj", Value = "self.value_proj" },
        ["distilbert"] = new("distilbert", "attention.q_lin", "attention.k_lin", "attention.v_lin", "ffn.lin1", "ffn.lin2"),
        ["gpt2"] = new("transformer", "c_attn", "c_attn", "c_attn", "mlp.c_fc", "mlp.c_proj"),
        ["gptj"] = new("transformer", "q_proj", "k_proj", "v_proj", "mlp.fc_in", "mlp.fc_out"),
        ["llama"] = Llama,
        ["mistral"] = Llama,
        ["qwen2"] = Plugin,
        ["qwen3"] = Plugin,
        ["bart"] = new("model", ".q_proj", ".k_proj", ".v_proj", ".fc1", ".fc2"),
        ["t5"] = new("", "Attention.q", "Attention.k", "Attention.v", "DenseReluDense.wi|DenseReluDense.wi_1", "DenseReluDense.wo"),
        ["mt5"] = new("", "Attention.q", "Attention.k", "Attention.v", "DenseReluDense.wi|DenseReluDense.wi_1", "DenseReluDense.wo"),
    };

    /// <summary>What stands before the paths of the body: <c>bert.</c>, or nothing in a bare model.</summary>
    public string Root { get; private init; } = "";

    /// <summary>The parts of <paramref name="model"/>. Throws <see cref="AdapterException"/> for one that the library does not know.</summary>
    public static HubArchitecture Of(PretrainedModel model)
    {
        if (!Known.TryGetValue(model.Config.ModelType, out var known))
        {
            throw new AdapterException(
                "peft_type", $"ADAPTERS does not know {model.Config.ModelType}. It knows {string.Join(", ", Known.Keys)}; use LORA or another PEFT method here.");
        }

        var root = known.Base + ".";
        return known with { Root = known.Base.Length > 0 && model.Modules().Any(module => module.Path.StartsWith(root, StringComparison.Ordinal)) ? root : "" };
    }

    /// <summary>Whether a projection goes by a name of this table; several are apart by |.</summary>
    public bool IsNamed(Site site, string name) =>
        Array.Exists(name.Split('|'), one => site.Path.EndsWith(one, StringComparison.Ordinal)) && !site.Path.EndsWith("attention.output.dense", StringComparison.Ordinal);

    /// <summary>Which of q, k and v a projection makes; null: none.</summary>
    public string? Matrix(Site site) => IsNamed(site, Query) ? "q" : IsNamed(site, Key) ? "k" : IsNamed(site, Value) ? "v" : null;

    /// <summary>The module that the adapters of a site belong to: they are its <c>adapters</c>.</summary>
    public static string PlaceOf(ResidualSite site) => site.Path.EndsWith(".adapters", StringComparison.Ordinal) ? site.Path[..^".adapters".Length] : site.Path;
}
