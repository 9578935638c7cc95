using System.Text.Json;
using System.Text.Json.Nodes;

namespace PeftServer.Engine.Training;

/// <summary>"auto" in the place of a setting's value: taken out of a document before it is read, since no setting is a text that can be "auto".</summary>
public static class AutoFields
{
    /// <summary>The objects whose fields can be "auto".</summary>
    public static readonly string[] Sections = ["training", "peft"];

    /// <summary>Paths of the fields that are "auto".</summary>
    public static IReadOnlyList<string> In(JsonElement document) => document.ValueKind is not JsonValueKind.Object ? [] :
    [
        .. from section in Sections
           where document.TryGetProperty(section, out var fields) && fields.ValueKind is JsonValueKind.Object
           from field in document.GetProperty(section).EnumerateObject()
           where field.Value.ValueKind is JsonValueKind.String && field.Value.ValueEquals("auto")
           select $"{section}.{field.Name}",
    ];

    /// <summary>Takes the fields at <paramref name="paths"/> out.</summary>
    public static void Remove(JsonObject document, IEnumerable<string> paths)
    {
        foreach (var path in paths.Select(path => path.Split('.', 2)))
        {
            document[path[0]]!.AsObject().Remove(path[1]);
        }
    }

    /// <summary>What a field cannot be; null where it can be "auto". LoRA's are LoRA's alone.</summary>
    public static string? Fault(string path, string? peftType) =>
        !AutoSettings.Fields.ContainsKey(path) ? $"{path} cannot be \"auto\". Those that can: {string.Join(", ", AutoSettings.Fields.Keys)}."
        : path.StartsWith("peft.", StringComparison.Ordinal) && peftType is not ("LORA" or null) ? $"{path} can be \"auto\" for LORA alone. Give a value."
        : null;
}
