using System.Text.Json;
using System.Text.Json.Nodes;
using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.AdapterHub;

/// <summary><c>head_config.json</c>: what a head is, and of which class of model.</summary>
internal static class HubHeadConfig
{
    /// <summary>The head's config in <paramref name="folder"/>; null where there is no head that fits the model.</summary>
    public static JsonObject? Read(string folder, PretrainedModel model)
    {
        var path = Path.Combine(folder, AdapterHubFile.HeadConfigName);
        if (!File.Exists(path) || !Array.Exists([AdapterHubFile.HeadWeightsName, AdapterHubFile.OldHeadWeightsName], name => File.Exists(Path.Combine(folder, name))))
        {
            return null;
        }

        try
        {
            var fields = JsonNode.Parse(File.ReadAllText(path)) as JsonObject ?? throw new CheckpointException($"{AdapterHubFile.HeadConfigName} is no object.");

            // A static head belongs to its class of model, and is left aside elsewhere, as the library does.
            return fields["config"] is JsonObject || (string?)fields["model_class"] == AdapterHubFile.ModelClass(model) ? fields : null;
        }
        catch (JsonException e)
        {
            throw new CheckpointException($"{AdapterHubFile.HeadConfigName} in {folder} cannot be read: {e.Message}", e);
        }
    }

    public static string Text(HubAdapter adapter, string baseModelName)
    {
        var model = adapter.Model;
        var fields = new JsonObject
        {
            ["hidden_size"] = model.HiddenSize,
            ["model_class"] = AdapterHubFile.ModelClass(model),
            ["model_name"] = baseModelName,
            ["model_type"] = model.Config.ModelType,
            ["version"] = AdapterHubFile.FormatVersion,
        };
        if (adapter.Head is HubPredictionHead flexible)
        {
            fields["config"] = flexible.Config.DeepClone();
            fields["name"] = adapter.Name;
            fields["model_class"] = FlexibleClass(model.Config.ModelType);
        }
        else
        {
            fields["config"] = null;
            fields["name"] = null;
            fields["num_labels"] = model.Config.LabelCount;
            fields["label2id"] = Labels(model.Config);
        }

        return AdapterHubFile.Sorted(fields).ToJsonString(PeftJson.Indented);
    }

    private static JsonObject Labels(PretrainedConfig config)
    {
        var labels = config.Section("label2id")?.Entries ?? [];
        return labels.Count > 0 ? new JsonObject(labels.Select(label => KeyValuePair.Create(label.Key, label.Value?.DeepClone())))
            : new JsonObject(Enumerable.Range(0, config.LabelCount).Select(i => KeyValuePair.Create($"LABEL_{i}", (JsonNode?)i)));
    }

    /// <summary>The library's class of a model that takes flexible heads.</summary>
    public static string FlexibleClass(string modelType) => modelType switch
    {
        "bert" => "BertAdapterModel",
        "roberta" => "RobertaAdapterModel",
        "electra" => "ElectraAdapterModel",
        "distilbert" => "DistilBertAdapterModel",
        "deberta-v2" => "DebertaV2AdapterModel",
        "gpt2" => "GPT2AdapterModel",
        "gptj" => "GPTJAdapterModel",
        "llama" => "LlamaAdapterModel",
        "mistral" => "MistralAdapterModel",
        "bart" => "BartAdapterModel",
        "t5" => "T5AdapterModel",
        "mt5" => "MT5AdapterModel",
        _ => throw new AdapterException("head", $"The library has no flexible heads for {modelType}."),
    };
}
