using System.Text.Json;
using System.Text.Json.Nodes;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.AdapterHub.Composition;

/// <summary>
/// Folders as the library's <c>save_adapter_fusion</c> writes them: <c>adapter_fusion_config.json</c> beside
/// <c>model_adapter_fusion.safetensors</c> or <c>pytorch_model_adapter_fusion.bin</c>, and a head where one trained along. The adapters
/// themselves lie in folders of their own.
/// </summary>
public static class AdapterFusionFile
{
    public const string ConfigName = "adapter_fusion_config.json";
    public const string WeightsName = "model_adapter_fusion.safetensors";
    public const string OldWeightsName = "pytorch_model_adapter_fusion.bin";

    /// <summary>Writes the layers of a fusion, and the head; as <c>.bin</c> where asked.</summary>
    public static void Save(ComposedAdapter adapter, string folder, string baseModelName, bool asPickle = false)
    {
        var fusion = adapter.Fusion ?? throw new ArgumentException("Nothing is fused here. Save the adapters themselves.", nameof(adapter));
        Directory.CreateDirectory(folder);
        AdapterHubFile.Write(Path.Combine(folder, asPickle ? OldWeightsName : WeightsName), adapter.FusionState);
        var fields = new JsonObject
        {
            ["adapter_names"] = new JsonArray([.. fusion.Name.Split(',').Select(name => (JsonNode)name)]),
            ["config"] = JsonSerializer.SerializeToNode(fusion.Config, PeftJson.Options),
            ["hidden_size"] = adapter.Model.HiddenSize,
            ["model_class"] = AdapterHubFile.ModelClass(adapter.Model),
            ["model_name"] = baseModelName,
            ["model_type"] = adapter.Model.Config.ModelType,
            ["name"] = fusion.Name,
            ["version"] = AdapterHubFile.FormatVersion,
        };
        File.WriteAllText(Path.Combine(folder, ConfigName), AdapterHubFile.Sorted(fields).ToJsonString(PeftJson.Indented));
        if (adapter.Head is not null)
        {
            AdapterHubFile.SaveHead(fusion.Adapters.Last(), folder, baseModelName, asPickle);
        }
    }

    /// <summary>
    /// Fuses <paramref name="adapters"/>, which are those that the folder names, as it says. Throws <see cref="CheckpointException"/> where
    /// they are others, or tensors do not fit.
    /// </summary>
    public static ComposedAdapter Load(string folder, IReadOnlyList<HubAdapter> adapters)
    {
        var fields = JsonNode.Parse(File.ReadAllText(Path.Combine(folder, ConfigName))) as JsonObject ?? throw new CheckpointException($"{ConfigName} is no object.");
        var config = fields["config"].Deserialize<FusionConfig>(PeftJson.Options) ?? throw new CheckpointException($"{ConfigName} has no config.");
        var block = new FuseBlock([.. adapters.Select(adapter => (AdapterBlock)adapter)], config);
        if ((string?)fields["name"] != block.Name)
        {
            throw new CheckpointException($"{ConfigName} fuses {(string?)fields["name"]}, but these are {block.Name}. Order and names must be the same.");
        }

        var composed = new ComposedAdapter(block);
        using var scope = NewDisposeScope();
        try
        {
            AdapterHubFile.Fill(composed.FusionState, AdapterHubFile.Tensors(folder, WeightsName, OldWeightsName), adapters[0], WeightsName);
            AdapterHubFile.LoadHead(adapters[^1], folder);
            return composed;
        }
        catch
        {
            composed.Dispose();
            throw;
        }
    }
}
