using System.Text.Json;

namespace PeftServer.Engine.Weights;

/// <summary>The tensors of a model folder: one safetensors file, or several under an index.</summary>
public sealed class SafetensorsCheckpoint : Checkpoint
{
    public const string SingleFile = "model.safetensors";
    public const string Index = "model.safetensors.index.json";

    private readonly Dictionary<string, SafetensorsFile> _files = [];
    private readonly Dictionary<string, SafetensorsFile> _places = [];

    private SafetensorsCheckpoint(string folder, IEnumerable<string> names)
    {
        Place = folder;
        try
        {
            foreach (var name in names)
            {
                var file = _files[name] = SafetensorsFile.Open(Path.Combine(folder, name));
                foreach (var tensor in file.Header.Entries.Keys)
                {
                    if (!_places.TryAdd(tensor, file))
                    {
                        throw new CheckpointException($"The tensor '{tensor}' is in two files of {folder}.");
                    }
                }
            }
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    protected override string Place { get; }

    public override IEnumerable<string> Names => _places.Keys;

    /// <summary>Whether <paramref name="folder"/> holds safetensors.</summary>
    public static bool IsIn(string folder) => File.Exists(Path.Combine(folder, SingleFile)) || File.Exists(Path.Combine(folder, Index));

    /// <summary>Opens the files in <paramref name="folder"/>. Throws <see cref="CheckpointException"/>.</summary>
    public static new SafetensorsCheckpoint Open(string folder)
    {
        if (File.Exists(Path.Combine(folder, SingleFile)))
        {
            return new SafetensorsCheckpoint(folder, [SingleFile]);
        }

        return File.Exists(Path.Combine(folder, Index))
            ? new SafetensorsCheckpoint(folder, Shards(folder))
            : throw new CheckpointException($"There is neither {SingleFile} nor {Index} in {folder}.");
    }

    /// <summary>The headers of the files in <paramref name="folder"/>: names and shapes, without libtorch.</summary>
    public static IEnumerable<SafetensorsEntry> Entries(string folder) =>
        (File.Exists(Path.Combine(folder, SingleFile)) ? [SingleFile] : Shards(folder))
        .SelectMany(name => SafetensorsHeader.Read(Path.Combine(folder, name)).Entries.Values);

    public override Tensor Tensor(string name) =>
        _places.TryGetValue(name, out var file) ? file.Tensor(name) : throw new CheckpointException($"There is no tensor '{name}' in {Place}.");

    private protected override FileRegion? RegionOf(string name) => _places.TryGetValue(name, out var file) ? file.Region(name) : null;

    protected override void Forget(string name) => _places[name].Forget(name);

    public override void Dispose()
    {
        foreach (var file in _files.Values)
        {
            file.Dispose();
        }
    }

    internal static List<string> Shards(string folder, string index = Index)
    {
        try
        {
            using var listed = JsonDocument.Parse(File.ReadAllBytes(Path.Combine(folder, index)));
            var names = listed.RootElement.GetProperty("weight_map").EnumerateObject().Select(entry => entry.Value.GetString()!).Distinct().ToList();
            return names.Find(name => Path.GetFileName(name) != name) is { } elsewhere
                ? throw new CheckpointException($"{index} names the file '{elsewhere}', which is not in its own folder.")
                : names;
        }
        catch (Exception e) when (e is JsonException or KeyNotFoundException or InvalidOperationException)
        {
            throw new CheckpointException($"{index} is not an index of a checkpoint's files: {e.Message}", e);
        }
    }
}
