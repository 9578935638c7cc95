using System.Globalization;
using PeftServer.Engine.Adapters;
using PeftServer.Engine.Training.Optimizers;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Training;

/// <summary>
/// Where a run stands, in <c>checkpoints/step-N.safetensors</c> of its folder: trained weights, the optimizer's state, what else the method changes, steps done. The
/// order of rows and the draws of dropout follow from seed and step, so this is all that resuming needs.
/// </summary>
internal static class TrainingCheckpoint
{
    private const string Folder = "checkpoints";

    public static void Save(string runFolder, int stepsDone, Optimizer optimizer, Adapter adapter)
    {
        var folder = Directory.CreateDirectory(Path.Combine(runFolder, Folder)).FullName;
        var path = Path.Combine(folder, FormattableString.Invariant($"step-{stepsDone}.safetensors"));
        SafetensorsWriter.Write(path, optimizer.State.Concat(Progress(adapter)).ToDictionary(entry => entry.Name, entry => entry.Tensor));

        // The new one is on the disk; only now may the others go. A run that stops right after a save writes the same name again.
        Find(folder).Where(checkpoint => checkpoint.Path != path).ToList().ForEach(checkpoint => File.Delete(checkpoint.Path));
    }

    /// <summary>Puts the newest checkpoint into <paramref name="optimizer"/> and <paramref name="adapter"/>; gives the steps it had done, 0 where there is none.</summary>
    public static int Restore(string runFolder, Optimizer optimizer, Adapter adapter)
    {
        if (Find(Path.Combine(runFolder, Folder)) is not [.., var (step, path)])
        {
            return 0;
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
        return step;
    }

    private static IEnumerable<(string Name, Tensor Tensor)> Progress(Adapter adapter) => adapter.Progress.Select(entry => ($"adapter.{entry.Name}", entry.Tensor));

    /// <summary>Checkpoints by rising step.</summary>
    private static List<(int Step, string Path)> Find(string folder) => !Directory.Exists(folder)
        ? []
        : [.. Directory.GetFiles(folder, "step-*.safetensors")
            .Select(path => (Step: int.Parse(Path.GetFileNameWithoutExtension(path)["step-".Length..], CultureInfo.InvariantCulture), Path: path))
            .OrderBy(checkpoint => checkpoint.Step)];
}
