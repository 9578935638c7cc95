using System.Globalization;
using System.Text.Json;
using PeftServer.Engine.Adapters;
using PeftServer.Engine.Models;
using PeftServer.Engine.Training;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Reading;

/// <summary>The classes that an adapter's own head tells apart.</summary>
public static class AdapterLabels
{
    /// <summary>Ends of the names of what makes the last scores of a head.</summary>
    private static readonly string[] Heads = [".score.weight", ".classifier.weight", ".classifier.out_proj.weight"];

    /// <summary>
    /// Their names: from the file beside the weights, else those of <paramref name="config"/> where there are as many, else
    /// <c>LABEL_0</c> and on, as transformers names them. Null where the adapter has no head of its own.
    /// </summary>
    public static IReadOnlyList<string>? Read(string adapterFolder, PretrainedConfig config)
    {
        var named = Path.Combine(adapterFolder, AdapterCompanions.LabelsName);
        if (File.Exists(named))
        {
            return JsonSerializer.Deserialize<string[]>(File.ReadAllBytes(named), PeftJson.Options);
        }

        var head = SafetensorsHeader.Read(Path.Combine(adapterFolder, AdapterFile.WeightsName)).Entries.Values
            .FirstOrDefault(entry => entry.Shape.Count == 2 && Heads.Any(end => entry.Name.EndsWith(end, StringComparison.Ordinal)));
        return head is null ? null
            : head.Shape[0] == config.LabelCount ? config.Labels
            : [.. Enumerable.Range(0, (int)head.Shape[0]).Select(number => string.Create(CultureInfo.InvariantCulture, $"LABEL_{number}"))];
    }
}
