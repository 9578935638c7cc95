using System.Text.Json;
using System.Text.Json.Nodes;
using PeftServer.Engine.Weights.Gguf;

namespace PeftServer.Engine.Training;

/// <summary>
/// What an adapter was trained with and cannot do without, beside its weights: the chat template and the tokens that end a turn.
/// Serving reads them there, so a base that changes its template later does not change old adapters.
/// </summary>
public static class AdapterCompanions
{
    private const string TemplateName = "chat_template.jinja";

    /// <summary>Names of the classes, by their number: what <c>id2label</c> of a config.json would say. PEFT's files have no place for them.</summary>
    public const string LabelsName = "labels.json";

    private const string GenerationName = "generation_config.json";

    /// <summary>Files that belong to the model once an adapter is merged into it.</summary>
    internal static readonly string[] Names = [TemplateName, GenerationName];

    /// <summary>End of a text, and end of a turn where that is another token.</summary>
    private static readonly string[] EndKeys = ["eos", "eot"];

    /// <summary>Writes the companions of an adapter trained on the model in <paramref name="modelFolder"/>, for <paramref name="labels"/> where it classifies.</summary>
    public static void Write(string modelFolder, string adapterFolder, IReadOnlyList<string>? labels = null)
    {
        if (labels is not null)
        {
            File.WriteAllText(Path.Combine(adapterFolder, LabelsName), JsonSerializer.Serialize(labels, PeftJson.Indented));
        }

        var template = Path.Combine(modelFolder, TemplateName);
        if (File.Exists(template))
        {
            File.Copy(template, Path.Combine(adapterFolder, TemplateName));
        }
        else if (Gguf(modelFolder)?.GetValueOrDefault("tokenizer.chat_template") is string text)
        {
            File.WriteAllText(Path.Combine(adapterFolder, TemplateName), text);
        }

        var stops = StopTokens(modelFolder);
        if (stops.Count > 0)
        {
            var ids = new JsonArray([.. stops.Order().Select(id => JsonValue.Create(id))]);
            File.WriteAllText(Path.Combine(adapterFolder, GenerationName), new JsonObject { ["eos_token_id"] = ids }.ToJsonString(PeftJson.Indented));
        }
    }

    /// <summary>
    /// The tokens that end a turn: what <c>generation_config.json</c>, <c>config.json</c> and the metadata of a GGUF file say, together.
    /// </summary>
    public static IReadOnlySet<int> StopTokens(string folder)
    {
        var stops = new HashSet<int>();
        foreach (var name in (string[])[GenerationName, "config.json"])
        {
            var path = Path.Combine(folder, name);
            if (File.Exists(path) && JsonNode.Parse(File.ReadAllText(path))?["eos_token_id"] is { } eos)
            {
                stops.UnionWith(eos is JsonArray list ? list.Select(id => (int)id!) : [(int)eos]);
            }
        }

        if (Gguf(folder) is { } metadata)
        {
            stops.UnionWith(EndKeys.Select(key => metadata.GetValueOrDefault($"tokenizer.ggml.{key}_token_id")).OfType<long>().Select(id => (int)id));
        }

        return stops;
    }

    /// <summary>The metadata of the GGUF file that a path means; null where it means none.</summary>
    private static Dictionary<string, object>? Gguf(string path)
    {
        if (GgufFile.Find(path) is not { } found)
        {
            return null;
        }

        using var file = GgufFile.Open(found);
        return file.Metadata;
    }
}
