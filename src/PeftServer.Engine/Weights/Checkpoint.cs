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
    /// is floating-point. Throws when some are missing, or when the checkpoint holds what nobody asked for.
    /// </summary>
    public void Fill(IEnumerable<Weight> weights, Device device, ScalarType dtype, Func<string, bool> ignores)
    {
        var places = _files.Values.SelectMany(file => file.Header.Entries.Keys.Select(name => (name, file))).ToDictionary();
        var missing = new List<string>();
        foreach (var weight in weights)
        {
            if (!places.Remove(weight.Path, out var file))
            {
                missing.Add(weight.Path);
                continue;
            }

            using var scope = NewDisposeScope();
            var stored = file.Tensor(weight.Path);
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

    /// <summary>
    /// The same for a model under another head than the checkpoint's. What both have of the body is found whether or not the
    /// names begin with the body's own; the checkpoint's head is left, and the weights of the new one go to <paramref name="draw"/>.
    /// </summary>
    public void FillBody(IEnumerable<Weight> weights, Device device, ScalarType dtype, Func<string, bool> ignores, Action<IReadOnlyList<Weight>> draw)
    {
        var places = _files.Values.SelectMany(file => file.Header.Entries.Keys.Select(name => (name, file))).ToDictionary();
        var behindFirst = places.Keys.GroupBy(Tail).Where(group => group.Key.Length > 0 && group.Count() == 1).ToDictionary(group => group.Key, group => group.Single());
        var (bodies, drawn, taken) = (new HashSet<string>(), new List<Weight>(), new HashSet<string>());
        foreach (var weight in weights)
        {
            var name = places.ContainsKey(weight.Path) ? weight.Path : places.ContainsKey(Tail(weight.Path)) ? Tail(weight.Path) : behindFirst.GetValueOrDefault(weight.Path);
            if (name is not null)
            {
                taken.Add(name);
            }

            if (name is null || !places[name].Header.Entries[name].Shape.SequenceEqual(weight.Shape))
            {
                drawn.Add(weight); // the head of another task, or one with other classes
                continue;
            }

            using var scope = NewDisposeScope();
            var stored = places[name].Tensor(name);
            weight.Set(stored.to(stored.is_floating_point() ? dtype : stored.dtype, device).MoveToOuterDisposeScope());
            bodies.Add(Head(weight.Path));
        }

        // What the body lacks is an error; BERT's pooler may be absent on either side. Of a checkpoint whose names begin with the body's
        // own, the rest is its head; of a bare one there is no rest.
        var missing = drawn.Where(weight => bodies.Contains(Head(weight.Path)) && !IsPooler(weight.Path)).Select(weight => weight.Path).ToList();
        var heads = taken.Select(Head).ToHashSet();
        var unexpected = places.Keys
            .Where(name => !taken.Contains(name) && !ignores(name) && !IsPooler(name) && (heads.Count > 1 || heads.Contains(Head(name)))).ToList();
        if (missing.Count > 0 || unexpected.Count > 0)
        {
            throw new CheckpointException(
                $"The weights in {_folder} do not fit its config.json:{Listed(" missing", missing)}{Listed(" unexpected", unexpected)}");
        }

        draw(drawn);
    }

    private static bool IsPooler(string name) => name.Contains("pooler.", StringComparison.Ordinal);

    private static string Head(string name) => name[..(name.IndexOf('.', StringComparison.Ordinal) is var dot and >= 0 ? dot : name.Length)];

    private static string Tail(string name) => name.IndexOf('.', StringComparison.Ordinal) is var dot and >= 0 ? name[(dot + 1)..] : "";

    public void Dispose()
    {
        foreach (var file in _files.Values)
        {
            file.Dispose();
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
