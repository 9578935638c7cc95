using System.Text.Json;

namespace PeftServer.Engine.Weights;

/// <summary>The tensors of a model folder: one safetensors file, or several under an index.</summary>
public sealed class Checkpoint : IDisposable
{
    public const string SingleFile = "model.safetensors";
    public const string Index = "model.safetensors.index.json";

    private readonly string _folder;
    private readonly Dictionary<string, SafetensorsFile> _files;

    private Checkpoint(string folder, IEnumerable<string> names)
    {
        (_folder, _files) = (folder, []);
        try
        {
            foreach (var name in names)
            {
                _files[name] = SafetensorsFile.Open(Path.Combine(folder, name));
            }
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>Names of all tensors.</summary>
    public IEnumerable<string> Names => _files.Values.SelectMany(file => file.Header.Entries.Keys);

    /// <summary>Opens the checkpoint in <paramref name="folder"/>. Throws <see cref="CheckpointException"/>.</summary>
    public static Checkpoint Open(string folder)
    {
        if (File.Exists(Path.Combine(folder, SingleFile)))
        {
            return new Checkpoint(folder, [SingleFile]);
        }

        return File.Exists(Path.Combine(folder, Index))
            ? new Checkpoint(folder, Shards(folder))
            : throw new CheckpointException($"There is neither {SingleFile} nor {Index} in {folder}.");
    }

    /// <summary>
    /// Gives every one of <paramref name="weights"/> its tensor on <paramref name="device"/>, as <paramref name="dtype"/> where it
    /// is floating-point. One that modules share may be saved under any of its <paramref name="otherNames"/>, or under several if
    /// their values are the same. Throws when some are missing, or when the checkpoint holds what nobody asked for.
    /// </summary>
    public void Fill(IEnumerable<Weight> weights, IEnumerable<(string Name, Weight Weight)> otherNames, Device device, ScalarType dtype, Func<string, bool> ignores)
    {
        var places = _files.Values.SelectMany(file => file.Header.Entries.Keys.Select(name => (name, file))).ToDictionary();
        var names = otherNames.ToLookup(entry => entry.Weight, entry => entry.Name);
        var missing = new List<string>();
        foreach (var weight in weights)
        {
            var saved = names[weight].Prepend(weight.Path).Where(places.ContainsKey).ToList();
            if (saved.Count == 0)
            {
                missing.Add(weight.Path);
                continue;
            }

            using var scope = NewDisposeScope();
            var stored = places[saved[0]].Tensor(saved[0]);
            saved.Skip(1).ToList().ForEach(name => CheckSame(stored, saved[0], places[name].Tensor(name), name));
            saved.ForEach(name => places.Remove(name));
            var wanted = stored.is_floating_point() ? dtype : stored.dtype;
            weight.Set(stored.to(wanted, device).MoveToOuterDisposeScope());
        }

        var unexpected = places.Keys.Where(name => !ignores(name)).ToList();
        if (missing.Count > 0 || unexpected.Count > 0)
        {
            throw new CheckpointException(
                $"The weights in {_folder} do not fit its config.json:{Listed(" missing", missing)}{Listed(" unexpected", unexpected)}");
        }
    }

    public void Dispose()
    {
        foreach (var file in _files.Values)
        {
            file.Dispose();
        }
    }

    private static void CheckSame(Tensor tensor, string name, Tensor other, string otherName)
    {
        if (!tensor.shape.SequenceEqual(other.shape) || !tensor.eq(other).all().item<bool>())
        {
            throw new CheckpointException(
                $"config.json ties '{otherName}' to '{name}', but the checkpoint holds different values for them. If they are separate, say tie_word_embeddings: false.");
        }
    }

    private static string Listed(string what, List<string> names) =>
        names.Count == 0 ? "" : $"{what}: {string.Join(", ", names.Take(5))}{(names.Count > 5 ? $" and {names.Count - 5} more" : "")}.";

    private static List<string> Shards(string folder)
    {
        try
        {
            using var index = JsonDocument.Parse(File.ReadAllBytes(Path.Combine(folder, Index)));
            var names = index.RootElement.GetProperty("weight_map").EnumerateObject().Select(entry => entry.Value.GetString()!).Distinct().ToList();
            return names.Find(name => Path.GetFileName(name) != name) is { } elsewhere
                ? throw new CheckpointException($"{Index} names the file '{elsewhere}', which is not in its own folder.")
                : names;
        }
        catch (Exception e) when (e is JsonException or KeyNotFoundException or InvalidOperationException)
        {
            throw new CheckpointException($"{Index} is not an index of safetensors files: {e.Message}", e);
        }
    }
}
