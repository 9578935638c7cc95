using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using PeftServer.Engine.Adapters;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Training;

/// <summary>
/// Adapters that runs go on from, as PEFT's <c>PeftModel.from_pretrained(…, is_trainable=True)</c> does: settings and tensors are the run's. Folders as
/// <see cref="AdapterFile"/> reads them.
/// </summary>
public static class StartingAdapters
{
    /// <summary>Fields that say who wrote a file and for what base, not how it computes; and the task, which the method of training has the word on.</summary>
    private static readonly HashSet<string> Neutral = ["base_model_name_or_path", "inference_mode", "peft_version", "auto_mapping", "revision", "task_type"];

    /// <summary>
    /// The settings of a run: the adapter's <paramref name="own"/>. Throws <see cref="AdapterException"/> where <paramref name="given"/> ones, as far as they say anything,
    /// are others.
    /// </summary>
    public static AdapterConfig Resolve(AdapterConfig own, JsonObject? given)
    {
        var fields = JsonSerializer.SerializeToNode(own, PeftJson.Options)!.AsObject();
        foreach (var (name, value) in (given ?? []).Where(field => !Neutral.Contains(field.Key) && field.Value is not null))
        {
            if (Comparable(value) != Comparable(fields[name]) && !(AdapterFile.IsNeutral(value) && AdapterFile.IsNeutral(fields[name])))
            {
                throw new AdapterException(name,
                    $"It is {value!.ToJsonString(PeftJson.Options)}, but the adapter that training starts from has {fields[name]?.ToJsonString(PeftJson.Options) ?? "none"}. Training goes on with the adapter's own settings: leave {name} out.");
            }
        }

        return own;
    }

    /// <summary>The classes that the adapter in <paramref name="folder"/> tells apart, in the order of its head; null where it has none.</summary>
    public static IReadOnlyList<string>? LabelsOf(string? folder)
    {
        var path = folder is null ? null : Path.Combine(folder, AdapterCompanions.LabelsName);
        return path is null || !File.Exists(path) ? null : JsonSerializer.Deserialize<string[]>(File.ReadAllBytes(path), PeftJson.Options);
    }

    /// <summary>
    /// The adapter in <paramref name="folder"/> frozen, beside the one that trains: what preferences are measured against. Whoever asks disposes of it.
    /// </summary>
    public static Adapter Freeze(string folder, PretrainedModel model)
    {
        var adapter = AdapterFile.Load(folder, model);
        adapter.SetTraining(false);
        return adapter;
    }

    /// <summary>Sha256, in hex, of a line "path NUL sha256 LF" a file, sorted by path: the digest that a server names an adapter by.</summary>
    public static string DigestOf(string folder)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        var files = Directory.EnumerateFiles(folder, "*", SearchOption.AllDirectories)
            .Select(path => (Path: path, Name: Path.GetRelativePath(folder, path).Replace(Path.DirectorySeparatorChar, '/'))).OrderBy(file => file.Name, StringComparer.Ordinal);
        foreach (var (path, name) in files)
        {
            using var content = File.OpenRead(path);
            hash.AppendData(Encoding.UTF8.GetBytes($"{name}\0{Convert.ToHexStringLower(SHA256.HashData(content))}\n"));
        }

        return Convert.ToHexStringLower(hash.GetHashAndReset());
    }

    /// <summary>A set has any order, and 16 is 16.0.</summary>
    private static string Comparable(JsonNode? value) => value switch
    {
        JsonArray list => $"[{string.Join(",", list.Select(Comparable).Order(StringComparer.Ordinal))}]",
        JsonObject map => $"{{{string.Join(",", map.Select(field => $"{field.Key}:{Comparable(field.Value)}").Order(StringComparer.Ordinal))}}}",
        JsonValue number when number.GetValueKind() is JsonValueKind.Number => double.Parse(number.ToJsonString(), CultureInfo.InvariantCulture).ToString("R", CultureInfo.InvariantCulture),
        null => "null",
        _ => value.ToJsonString(),
    };
}
