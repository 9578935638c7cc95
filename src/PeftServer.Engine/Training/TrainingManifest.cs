using System.Security.Cryptography;
using System.Text.Json;
using System.Text.Json.Serialization;
using PeftServer.Engine.Adapters;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Training;

/// <summary>
/// What a run was made of, beside its adapter: enough to do it again, and nothing of where or when it was done, so that the same run gives the same bytes.
/// </summary>
public sealed record TrainingManifest
{
    public const string FileName = "training_manifest.json";

    /// <summary>Version of this program.</summary>
    public required string PeftserverVersion { get; init; }

    /// <summary>Version of libtorch's wrapper.</summary>
    public required string TorchsharpVersion { get; init; }

    /// <summary>What the base model is called.</summary>
    public required string ModelName { get; init; }

    /// <summary>Sha256 over the base's config.json and the headers of its safetensors files: its architecture, names and shapes.</summary>
    public required string ModelSha256 { get; init; }

    /// <summary>Sha256 of the training file.</summary>
    public required string TrainingFileSha256 { get; init; }

    /// <summary>Sha256 of the validation file.</summary>
    public string? ValidationFileSha256 { get; init; }

    /// <summary>Digest of the adapter that the run started from, see <see cref="StartingAdapters.DigestOf"/>.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? StartingAdapterSha256 { get; init; }

    /// <summary>Digest of the adapters that the method worked with, as that of <see cref="StartingAdapterSha256"/>.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? ExpertsSha256 { get; init; }

    /// <summary>Names of the models that graders embedded texts by, with digests as <see cref="ModelSha256"/>.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public IReadOnlyDictionary<string, string>? EmbeddingModels { get; init; }

    public required AdapterConfig Peft { get; init; }

    public required TrainingMethod Method { get; init; }

    public required TrainingArguments Training { get; init; }

    /// <summary>The manifest of a run.</summary>
    public static TrainingManifest Of(TrainingSpec spec) => new()
    {
        PeftserverVersion = VersionOf(typeof(TrainingManifest)),
        TorchsharpVersion = VersionOf(typeof(Tensor)),
        ModelName = spec.ModelName,
        ModelSha256 = DigestOfModel(spec.Model),
        TrainingFileSha256 = DigestOf(spec.TrainingFile),
        ValidationFileSha256 = spec.ValidationFile is null ? null : DigestOf(spec.ValidationFile),
        StartingAdapterSha256 = spec.StartingAdapter is null ? null : StartingAdapters.DigestOf(spec.StartingAdapter),
        ExpertsSha256 = spec.Experts is null ? null : StartingAdapters.DigestOf(spec.Experts),
        EmbeddingModels = EmbeddersOf(spec),
        Peft = spec.Peft,
        Method = spec.Method,
        Training = spec.Training,
    };

    /// <summary>Reads one. Throws <see cref="JsonException"/>.</summary>
    public static TrainingManifest Read(string path) =>
        JsonSerializer.Deserialize<TrainingManifest>(File.ReadAllBytes(path), PeftJson.Options) ?? throw new JsonException($"{path} is null.");

    /// <summary>What of <paramref name="spec"/> is not what this run had, in words.</summary>
    public IEnumerable<string> Differences(TrainingSpec spec)
    {
        var now = Of(spec);
        return new[]
        {
            (now.ModelSha256 == ModelSha256, $"the model in {spec.Model} is not {ModelName} as it was: its config.json, names or shapes differ"),
            (now.TrainingFileSha256 == TrainingFileSha256, $"{spec.TrainingFile} has the sha256 {now.TrainingFileSha256}, the training file had {TrainingFileSha256}"),
            (now.ValidationFileSha256 == ValidationFileSha256, ValidationFileSha256 is null
                ? "the run had no validation file" : $"the validation file had the sha256 {ValidationFileSha256}, this one {now.ValidationFileSha256 ?? "is missing"}"),
            (now.StartingAdapterSha256 == StartingAdapterSha256, StartingAdapterSha256 is null
                ? "the run started from no adapter" : $"the run started from the adapter {StartingAdapterSha256}, this one {(now.StartingAdapterSha256 is { } other ? $"from {other}" : "from none")}"),
            (now.ExpertsSha256 == ExpertsSha256, ExpertsSha256 is null
                ? "the run worked with no other adapters" : $"the run worked with the adapters {ExpertsSha256}, this one {(now.ExpertsSha256 is { } others ? $"with {others}" : "with none")}"),
        }.Concat(spec.Method.EmbeddingModels.Select(name => Embedder(name, now))).Where(each => !each.Item1).Select(each => each.Item2);
    }

    private (bool, string) Embedder(string name, TrainingManifest now) => now.EmbeddingModels?.GetValueOrDefault(name) is not { } digest
        ? (false, $"its grader embeds texts by '{name}', whose folder is not given")
        : EmbeddingModels?.GetValueOrDefault(name) is not { } told ? (false, $"the manifest has no digest of the embedding model '{name}'")
        : (digest == told, $"the embedding model '{name}' is not what it was: its config.json, names or shapes differ");

    /// <summary>Those that the method's graders name, where the spec knows their folders.</summary>
    private static SortedDictionary<string, string>? EmbeddersOf(TrainingSpec spec)
    {
        var folders = spec.EmbeddingModels ?? new Dictionary<string, string>();
        var used = spec.Method.EmbeddingModels.Where(folders.ContainsKey).ToDictionary(name => name, name => DigestOfModel(folders[name]));
        return used.Count == 0 ? null : new SortedDictionary<string, string>(used, StringComparer.Ordinal);
    }

    private static string VersionOf(Type type) => type.Assembly.GetName().Version?.ToString() ?? "";

    private static string DigestOf(string path)
    {
        using var stream = File.OpenRead(path);
        return Convert.ToHexStringLower(SHA256.HashData(stream));
    }

    private static string DigestOfModel(string folder)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        hash.AppendData(File.ReadAllBytes(Path.Combine(folder, "config.json")));
        foreach (var path in Directory.GetFiles(folder, "*.safetensors").Order(StringComparer.Ordinal))
        {
            foreach (var entry in SafetensorsHeader.Read(path).Entries.Values.OrderBy(entry => entry.Name, StringComparer.Ordinal))
            {
                hash.AppendData(System.Text.Encoding.UTF8.GetBytes($"{entry.Name} {entry.Dtype} [{string.Join(", ", entry.Shape)}]\n"));
            }
        }

        return Convert.ToHexStringLower(hash.GetHashAndReset());
    }
}
