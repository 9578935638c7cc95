using System.Text.RegularExpressions;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters;

/// <summary>Which sites of a model a method takes, by PEFT's rules.</summary>
public static class TargetModules
{
    /// <summary>
    /// PEFT's default targets by <c>model_type</c> for LoRA and most methods
    /// (<c>TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING</c>).
    /// </summary>
    private static readonly Dictionary<string, string[]> Defaults = new()
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
    };

    /// <summary>The default targets for the architecture. Throws <see cref="AdapterException"/> when PEFT has none.</summary>
    public static ModuleSelector DefaultFor(PretrainedModel model) =>
        Defaults.TryGetValue(model.Config.ModelType, out var names)
            ? ModuleSelector.Of(names)
            : throw new AdapterException("target_modules", $"There is no default for {model.Config.ModelType}. Name modules, or say \"all-linear\". It has {Endings(model)}.");

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
        var named = model.Sites().Where(site => targets.IsAllLinear ? site is Projection && site.Path != model.OutputHead : targets.Matches(site.Path)).ToList();
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
        string.Join(", ", model.Sites().Select(site => site.Path[(site.Path.LastIndexOf('.') + 1)..]).Distinct().Order(StringComparer.Ordinal));
}

/// <summary>An adapter does not fit its model; <see cref="Field"/> is the setting to change.</summary>
public sealed class AdapterException(string field, string message) : Exception($"{field}: {message}")
{
    public string Field { get; } = field;
}
