using System.Globalization;
using System.Text.Json;
using PeftServer.Engine.Adapters;
using PeftServer.Engine.Training.Optimizers;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Training;

/// <summary>
/// Where a run stands, in <c>checkpoints/</c> of its folder: <c>step-N.json</c>, then <c>step-N.safetensors</c> (trained weights, the optimizer's state, what else the method changes), which says
/// that both are there. The order of rows and the draws of dropout follow from seed and step, so this is all that resuming needs. <c>best.safetensors</c> has the
/// weights of the best evaluation.
/// </summary>
internal static class TrainingCheckpoint
{
    private const string Folder = "checkpoints";
    private const string BestName = "best.safetensors";
    private const string Parameters = "parameters";

    /// <summary>Bytes that a checkpoint takes.</summary>
    public static long SizeOf(Optimizer optimizer, Adapter adapter) => optimizer.State.Concat(Progress(adapter)).Sum(entry => entry.Tensor.numel() * entry.Tensor.element_size()) + (64 << 10);

    /// <summary>Writes a checkpoint, and removes all but the newest <paramref name="keep"/>.</summary>
    public static void Save(string runFolder, TrainingState state, Optimizer optimizer, Adapter adapter, int keep)
    {
        var folder = Directory.CreateDirectory(Path.Combine(runFolder, Folder)).FullName;
        var path = Path.Combine(folder, FormattableString.Invariant($"step-{state.StepsDone}.safetensors"));
        WriteWhole(Path.ChangeExtension(path, ".json"), JsonSerializer.SerializeToUtf8Bytes(state, PeftJson.Options));
        SafetensorsWriter.Write(path, optimizer.State.Concat(Progress(adapter)).ToDictionary(entry => entry.Name, entry => entry.Tensor));

        // The new one is on the disk; only now may others go. A run that stops right after a save writes the same name again.
        foreach (var (_, old) in Find(folder).SkipLast(keep).Where(checkpoint => checkpoint.Path != path))
        {
            File.Delete(old);
            File.Delete(Path.ChangeExtension(old, ".json"));
        }
    }

    /// <summary>The steps that there are checkpoints after, rising.</summary>
    public static IReadOnlyList<int> Steps(string runFolder) => [.. Find(Path.Combine(runFolder, Folder)).Select(checkpoint => checkpoint.Step)];

    /// <summary>
    /// Puts the newest checkpoint, or the one after <paramref name="after"/> steps, into <paramref name="optimizer"/> and <paramref name="adapter"/>; gives where the run stood, the very
    /// beginning where there is none.
    /// </summary>
    public static TrainingState Restore(string runFolder, Optimizer optimizer, Adapter adapter, int? after = null)
    {
        if (Find(Path.Combine(runFolder, Folder)).Where(checkpoint => after is null || checkpoint.Step == after).ToList() is not [.., var (step, path)])
        {
            return new TrainingState();
        }

        using var frozen = no_grad();
        using var scope = NewDisposeScope();
        using var file = SafetensorsFile.Open(path);
        optimizer.Restore(file.Tensor);
        foreach (var (name, tensor) in Progress(adapter))
        {
            tensor.copy_(file.Tensor(name));
        }

        adapter.Resume();
        var state = Path.ChangeExtension(path, ".json");
        return File.Exists(state) ? JsonSerializer.Deserialize<TrainingState>(File.ReadAllBytes(state), PeftJson.Options)! : new TrainingState { StepsDone = step };
    }

    /// <summary>Keeps the weights of the best evaluation.</summary>
    public static void SaveBest(string runFolder, Optimizer optimizer, Adapter adapter)
    {
        var folder = Directory.CreateDirectory(Path.Combine(runFolder, Folder)).FullName;
        SafetensorsWriter.Write(Path.Combine(folder, BestName), Progress(adapter).Append((Parameters, optimizer.Parameters)).ToDictionary(entry => entry.Item1, entry => entry.Item2));
    }

    /// <summary>Puts the weights of the best evaluation back; false where there are none.</summary>
    public static bool RestoreBest(string runFolder, Optimizer optimizer, Adapter adapter)
    {
        var path = Path.Combine(runFolder, Folder, BestName);
        if (!File.Exists(path))
        {
            return false;
        }

        using var frozen = no_grad();
        using var scope = NewDisposeScope();
        using var file = SafetensorsFile.Open(path);
        optimizer.Parameters.copy_(file.Tensor(Parameters));
        foreach (var (name, tensor) in Progress(adapter))
        {
            tensor.copy_(file.Tensor(name));
        }

        adapter.Resume();
        return true;
    }

    /// <summary>What the method itself changes from step to step.</summary>
    private static IEnumerable<(string Name, Tensor Tensor)> Progress(Adapter adapter) => adapter.Progress.Select(entry => ($"adapter.{entry.Name}", entry.Tensor));

    private static void WriteWhole(string path, byte[] content)
    {
        var temporary = $"{path}.{Environment.ProcessId}.tmp";
        using (var file = new FileStream(temporary, FileMode.Create, FileAccess.Write))
        {
            file.Write(content);
            file.Flush(flushToDisk: true);
        }

        File.Move(temporary, path, overwrite: true);
    }

    /// <summary>Checkpoints by rising step.</summary>
    private static List<(int Step, string Path)> Find(string folder) => !Directory.Exists(folder)
        ? []
        : [.. Directory.GetFiles(folder, "step-*.safetensors")
            .Select(path => (Step: int.Parse(Path.GetFileNameWithoutExtension(path)["step-".Length..], CultureInfo.InvariantCulture), Path: path))
            .OrderBy(checkpoint => checkpoint.Step)];
}
