using System.Text.RegularExpressions;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters;

/// <summary>Which sites of a model a method takes, by PEFT's rules.</summary>
public static class TargetModules
{
    /// <summary>
    /// PEFT's default targets by table and <c>model_type</c> (<c>TRANSFORMERS_MODELS_TO_…_MAPPING</c>). LoRA's is that of most methods.
    /// </summary>
    private static readonly Dictionary<string, Dictionary<string, string[]>> Defaults = new()
    {
        ["LORA"] = new()
        {
            ["llama"] = ["q_proj", "v_proj"],
            ["mistral"] = ["q_proj", "v_proj"],
            ["mixtral"] = ["q_proj", "v_proj"],
            ["qwen2"] = ["q_proj", "v_proj"],
            ["qwen3"] = ["q_proj", "v_proj"],
            ["gemma"] = ["q_proj", "v_proj"],
            ["gemma2"] = ["q_proj", "v_proj"],
            ["gemma3_text"] = ["q_proj", "v_proj"],
            ["stablelm"] = ["q_proj", "v_proj"],
            ["phi"] = ["q_proj", "v_proj", "fc1", "fc2"],
            ["gpt2"] = ["c_attn"],
            ["gptj"] = ["q_proj", "v_proj"],
            ["gpt_neox"] = ["query_key_value"],
            ["opt"] = ["q_proj", "v_proj"],
            ["bloom"] = ["query_key_value"],
            ["falcon"] = ["query_key_value"],
            ["t5"] = ["q", "v"],
            ["mt5"] = ["q", "v"],
            ["bart"] = ["q_proj", "v_proj"],
            ["bert"] = ["query", "value"],
            ["roberta"] = ["query", "value"],
            ["electra"] = ["query", "value"],
            ["deberta-v2"] = ["query_proj", "value_proj"],
        },
        ["IA3"] = new()
        {
            ["llama"] = ["k_proj", "v_proj", "down_proj"],
            ["mistral"] = ["k_proj", "v_proj", "down_proj"],
            ["mixtral"] = ["k_proj", "v_proj", "w2"],
            ["qwen2"] = ["q_proj", "v_proj", "down_proj"],
            ["qwen3"] = ["q_proj", "v_proj", "down_proj"],
            ["gemma"] = ["q_proj", "v_proj", "down_proj"],
            ["gemma2"] = ["q_proj", "v_proj", "down_proj"],
            ["gemma3_text"] = ["q_proj", "v_proj", "down_proj"],
            ["phi"] = ["q_proj", "v_proj", "fc2"],
            ["gpt2"] = ["c_attn", "mlp.c_proj"],
            ["gptj"] = ["q_proj", "v_proj", "fc_out"],
            ["gpt_neox"] = ["query_key_value", "dense_4h_to_h"],
            ["opt"] = ["q_proj", "k_proj", "fc2"],
            ["bloom"] = ["query_key_value", "mlp.dense_4h_to_h"],
            ["falcon"] = ["query_key_value", "dense_4h_to_h"],
            ["t5"] = ["k", "v", "wo"],
            ["mt5"] = ["k", "v", "wi_1"],
            ["bart"] = ["q_proj", "v_proj", "fc2"],
            ["bert"] = ["key", "value", "output.dense"],
            ["roberta"] = ["key", "value", "output.dense"],
            ["deberta-v2"] = ["key_proj", "value_proj", "output.dense"],
        },
        ["IA3 feed-forward"] = new()
        {
            ["llama"] = ["down_proj"],
            ["mistral"] = ["down_proj"],
            ["mixtral"] = ["w2"],
            ["qwen2"] = ["down_proj"],
            ["qwen3"] = ["down_proj"],
            ["gemma"] = ["down_proj"],
            ["gemma2"] = ["down_proj"],
            ["gemma3_text"] = ["down_proj"],
            ["phi"] = ["fc2"],
            ["gpt2"] = ["mlp.c_proj"],
            ["gptj"] = ["fc_out"],
            ["gpt_neox"] = ["dense_4h_to_h"],
            ["opt"] = ["fc2"],
            ["bloom"] = ["mlp.dense_4h_to_h"],
            ["falcon"] = ["dense_4h_to_h"],
            ["t5"] = ["wo"],
            ["mt5"] = [],
            ["bart"] = ["fc2"],
            ["bert"] = ["output.dense"],
            ["roberta"] = ["output.dense"],
            ["deberta-v2"] = ["output.dense"],
        },
        ["LN_TUNING"] = new()
        {
            ["llama"] = ["input_layernorm", "post_attention_layernorm", "norm"],
            ["mistral"] = ["input_layernorm", "post_attention_layernorm", "norm"],
            ["qwen2"] = ["post_attention_layernorm"],
            ["qwen3"] = ["post_attention_layernorm"],
            ["gemma"] = ["input_layernorm", "post_attention_layernorm", "norm"],
            ["gemma2"] = ["input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm", "norm"],
            ["gemma3_text"] = ["input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm", "norm"],
            ["phi"] = ["input_layernorm", "final_layernorm"],
            ["gpt2"] = ["ln_1", "ln_2", "ln_f"],
            ["gptj"] = ["ln_1", "ln_f"],
            ["bloom"] = ["input_layernorm", "post_attention_layernorm", "ln_f"],
            ["falcon"] = ["input_layernorm", "post_attention_layernorm", "ln_f"],
            ["t5"] = ["layer_norm", "final_layer_norm"],
            ["mt5"] = ["layer_norm", "final_layer_norm"],
            ["bart"] = ["self_attn_layer_norm", "encoder_attn_layer_norm", "final_layer_norm"],
        },
        ["ADALORA"] = new()
        {
            ["llama"] = ["q_proj", "v_proj"],
            ["qwen2"] = ["q_proj", "v_proj"],
            ["qwen3"] = ["q_proj", "v_proj"],
            ["gemma"] = ["q_proj", "v_proj"],
            ["gemma2"] = ["q_proj", "v_proj"],
            ["gemma3_text"] = ["q_proj", "v_proj"],
            ["gpt2"] = ["c_attn"],
            ["gptj"] = ["q_proj", "v_proj"],
            ["gpt_neox"] = ["query_key_value"],
            ["opt"] = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"],
            ["bloom"] = ["query_key_value"],
            ["t5"] = ["q", "k", "v", "o", "wi", "wo"],
            ["mt5"] = ["q", "k", "v", "o", "wi_0", "wi_1", "wo"],
            ["bart"] = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"],
            ["bert"] = ["query", "value"],
            ["roberta"] = ["query", "key", "value", "dense"],
            ["deberta-v2"] = ["query_proj", "key_proj", "value_proj", "dense"],
        },
        ["BEFT"] = new()
        {
            ["llama"] = ["v_proj"],
            ["mistral"] = ["v_proj"],
            ["mixtral"] = ["v_proj"],
            ["qwen2"] = ["v_proj"],
            ["qwen3"] = ["v_proj"],
            ["gemma"] = ["v_proj"],
            ["gemma2"] = ["v_proj"],
            ["gemma3_text"] = ["v_proj"],
            ["phi"] = ["v_proj"],
            ["gptj"] = ["v_proj"],
            ["opt"] = ["v_proj"],
            ["t5"] = ["v"],
            ["mt5"] = ["v"],
            ["bart"] = ["v_proj"],
            ["bert"] = ["value"],
            ["roberta"] = ["value"],
            ["deberta-v2"] = ["value_proj"],
        },
    };

    /// <summary>The default targets for the architecture. Throws <see cref="AdapterException"/> when PEFT has none.</summary>
    public static ModuleSelector DefaultFor(PretrainedModel model, string table = "LORA") =>
        Defaults[table].TryGetValue(model.Config.ModelType, out var names)
            ? ModuleSelector.Of(names)
            : throw new AdapterException("target_modules", $"There is no default for {model.Config.ModelType}. Name modules, or say \"all-linear\". It has {Endings(model)}.");

    /// <summary>Whether the site trains in full: PEFT's <c>modules_to_save</c> names it.</summary>
    internal static bool IsSaved(Site site, IReadOnlyList<string>? modulesToSave) => modulesToSave?.Any(name => IsWithin(site.Path, name)) is true;

    /// <summary>Whether a site is the module that a name of <c>modules_to_save</c> ends, or a part of it.</summary>
    public static bool IsWithin(string path, string name) =>
        path.EndsWith(name, StringComparison.Ordinal) || path.StartsWith($"{name}.", StringComparison.Ordinal) || path.Contains($".{name}.", StringComparison.Ordinal);

    /// <summary>The modules that train in full, with the heads that PEFT adds for a task.</summary>
    public static IReadOnlyList<string>? WithHeads(IReadOnlyList<string>? saved, TaskType? task)
    {
        string[] heads = task switch
        {
            TaskType.SequenceClassification or TaskType.TokenClassification => ["classifier", "score"],
            TaskType.QuestionAnswering => ["qa_outputs"],
            _ => [],
        };
        return heads.Length == 0 ? saved : [.. (saved ?? []).Union(heads)];
    }

    /// <summary>
    /// The sites of <paramref name="model"/> that <paramref name="targets"/> means, less <paramref name="excluded"/>, less those
    /// that train in full. Throws <see cref="AdapterException"/> when there are none.
    /// </summary>
    public static IReadOnlyList<Site> Select(
        PretrainedModel model, ModuleSelector targets, ModuleSelector? excluded = null, IReadOnlyList<string>? savedModules = null,
        IReadOnlyList<int>? layers = null, IReadOnlyList<string>? layersPattern = null)
    {
        var named = model.Sites().Where(site => site is not Parameter).Where(site => targets.IsAllLinear ? site is Projection && site.Path != model.OutputHead : targets.Matches(site.Path)).ToList();
        var kept = named
            .Where(site => excluded is null || !excluded.Matches(site.Path))
            .Where(site => savedModules is null || !savedModules.Any(name => IsWithin(site.Path, name)))
            .Where(site => layers is null || (LayerOf(site.Path, layersPattern) is { } layer && layers.Contains(layer)))
            .ToList();
        if (kept.Count > 0)
        {
            return kept;
        }

        throw new AdapterException("target_modules", named.Count > 0
            ? $"Every module that '{targets}' names is left out by exclude_modules, modules_to_save or layers_to_transform."
            : $"No module matches '{targets}'. This model has {Endings(model)}.");
    }

    /// <summary>Number of the layer that a path is in: the first integer after the name of the list of layers.</summary>
    private static int? LayerOf(string path, IReadOnlyList<string>? patterns)
    {
        var expressions = patterns is null or []
            ? [@"^.*?\.[^.]*\.(\d+)\."]
            : patterns.Select(pattern => $@"^.*\.{pattern}\.(\d+)\.");
        var match = expressions.Select(expression => Regex.Match(path, expression, RegexOptions.NonBacktracking)).FirstOrDefault(match => match.Success);
        return match is null ? null : int.Parse(match.Groups[1].Value, System.Globalization.CultureInfo.InvariantCulture);
    }

    /// <summary>The value of the first pattern that matches the path, or its end after a dot: PEFT's <c>rank_pattern</c> rule.</summary>
    public static T ByPattern<T>(IReadOnlyDictionary<string, T> patterns, string path, T otherwise)
    {
        foreach (var (pattern, value) in patterns)
        {
            if (Regex.IsMatch(path, $@"\A(?:.*\.)?(?:{pattern})\z", RegexOptions.NonBacktracking))
            {
                return value;
            }
        }

        return otherwise;
    }

    private static string Endings(PretrainedModel model) =>
        string.Join(", ", model.Sites().Where(site => site is not Parameter).Select(site => site.Path[(site.Path.LastIndexOf('.') + 1)..]).Distinct().Order(StringComparer.Ordinal));
}

/// <summary>An adapter does not fit its model; <see cref="Field"/> is the setting to change.</summary>
public sealed class AdapterException(string field, string message) : Exception($"{field}: {message}")
{
    public string Field { get; } = field;
}
