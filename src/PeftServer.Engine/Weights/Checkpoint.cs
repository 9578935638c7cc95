using PeftServer.Engine.Quantization;
using PeftServer.Engine.Weights.Gguf;

namespace PeftServer.Engine.Weights;

/// <summary>The tensors of a model by their names, whatever files hold them.</summary>
public abstract class Checkpoint : IDisposable
{
    /// <summary>The folder or file, for errors.</summary>
    protected abstract string Place { get; }

    /// <summary>Names of all tensors.</summary>
    public abstract IEnumerable<string> Names { get; }

    /// <summary>The tensor <paramref name="name"/> on the CPU; a view of the file where that is possible.</summary>
    public abstract Tensor Tensor(string name);

    /// <summary>
    /// The same for one who wants it as <paramref name="wanted"/>: a checkpoint that must decode its values anyway may give that type at
    /// once, so that the whole is never there in float32.
    /// </summary>
    protected virtual Tensor Tensor(string name, ScalarType wanted) => Tensor(name);

    /// <summary>Where the tensor lies in a file, as it is; null where it must be decoded.</summary>
    private protected virtual FileRegion? RegionOf(string name) => null;

    /// <summary>A tensor that was looked at will not be again.</summary>
    protected virtual void Forget(string name)
    {
    }

    /// <summary>
    /// Opens the checkpoint in <paramref name="folder"/>: safetensors, else a GGUF file (which may be named itself), else PyTorch's
    /// <c>.bin</c> files. Throws <see cref="CheckpointException"/>.
    /// </summary>
    public static Checkpoint Open(string folder) =>
        GgufFile.Find(folder) is { } gguf ? GgufCheckpoint.OpenFile(gguf)
        : !SafetensorsCheckpoint.IsIn(folder) && PickleCheckpoint.IsIn(folder) ? PickleCheckpoint.Open(folder)
        : SafetensorsCheckpoint.Open(folder);

    /// <summary>
    /// Gives the weights of <paramref name="plan"/> their tensors on <paramref name="device"/>, as <paramref name="dtype"/> where
    /// they are floating-point. One that modules share may be saved under several names if their values are the same. Throws when
    /// some are missing that the model cannot draw, or when the checkpoint holds what nobody asked for. Tensors in <paramref name="shared"/>
    /// are taken from there.
    /// </summary>
    public WeightPlacement Fill(WeightPlan plan, Device device, ScalarType dtype, SharedTensors? shared = null)
    {
        var placement = plan.Place(Names);
        var missing = placement.Missing.Where(weight => !plan.MayBeMissing(weight)).Select(weight => weight.Path).ToList();
        if (missing.Count > 0 || placement.Unexpected.Count > 0)
        {
            throw new CheckpointException(
                $"The weights in {Place} do not fit its config.json:{Listed(" missing", missing)}{Listed(" unexpected", placement.Unexpected)}");
        }

        var parts = placement.Whole.Select(entry => new Part(entry.Key, [[entry.Value[0]]], IsStack: false, [.. entry.Value.Skip(1)]))
            .Concat(placement.InPieces.Select(entry => new Part(entry.Key, entry.Value, IsStack: true, []))).ToList();
        var isHeld = parts.ConvertAll(part => shared is not null && MayBeShared(part, plan) && shared.Holds(part.Rows[0][0], dtype, device));
        var staged = parts.Select((part, i) => isHeld[i] ? null : Staged(part, device, dtype)).ToList();
        using var reader = new StagedReader(staged.OfType<List<FileRegion>>().SelectMany(regions => regions), device);
        for (var i = 0; i < parts.Count; i++)
        {
            using var scope = NewDisposeScope();
            var part = parts[i];
            if (!isHeld[i])
            {
                CheckSame(part, dtype);
            }

            var loaded = isHeld[i] ? null
                : staged[i] is { } regions ? Copied(part, regions, reader, device, dtype)
                : Moved(part.IsStack ? Joined(part) : Tensor(part.Rows[0][0], dtype), device, dtype);
            if (shared is not null && MayBeShared(part, plan))
            {
                part.Weight.Set(shared.Of(part.Rows[0][0], dtype, device, () => loaded!));
            }
            else
            {
                Set(part.Weight, loaded!, plan.Quantization(part.Weight));
            }
        }

        return placement;
    }

    public abstract void Dispose();

    /// <summary>A weight that stands in the checkpoint as the model has it.</summary>
    private static bool MayBeShared(Part part, WeightPlan plan) => !part.IsStack && plan.Quantization(part.Weight) is BaseQuantization.None;

    private static Tensor Moved(Tensor stored, Device device, ScalarType dtype) => stored.to(stored.is_floating_point() ? dtype : stored.dtype, device);

    private static void Set(Weight weight, Tensor loaded, BaseQuantization quantization)
    {
        if (quantization is BaseQuantization.None)
        {
            weight.Set(loaded.MoveToOuterDisposeScope());
        }
        else
        {
            weight.Set(PackedMatrix.Pack(loaded, quantization));
        }
    }

    /// <summary>
    /// Where the pieces of a weight lie that must be copied anyway: to another device or type, or beside one another. Null for what is a
    /// view of its file, or must be decoded.
    /// </summary>
    private List<FileRegion>? Staged(Part part, Device device, ScalarType dtype)
    {
        var names = part.Rows.SelectMany(row => row).ToList();
        var regions = names.Select(RegionOf).OfType<FileRegion>().ToList();
        return regions.Count == names.Count && (part.IsStack || device.type is not DeviceType.CPU || Target(regions[0], dtype) != regions[0].Dtype) ? regions : null;
    }

    private static Tensor Copied(Part part, List<FileRegion> regions, StagedReader reader, Device device, ScalarType dtype)
    {
        var target = Target(regions[0], dtype);
        if (!part.IsStack)
        {
            var whole = empty(regions[0].Shape.ToArray(), dtype: target, device: device);
            reader.CopyNext(whole);
            return whole;
        }

        var (piece, width) = (new Queue<FileRegion>(regions), regions.Take(part.Rows[0].Count).Sum(region => region.Shape is [var height, ..] ? height : 0));
        long[] shape = [part.Rows.Count, width, .. regions[0].Shape.Skip(1)];
        var joined = empty(shape, dtype: target, device: device); // [rows, pieces' height, …]
        for (var row = 0; row < part.Rows.Count; row++)
        {
            var at = 0L;
            for (var i = 0; i < part.Rows[row].Count; i++)
            {
                var region = piece.Dequeue();
                if (!region.Shape.Skip(1).SequenceEqual(regions[0].Shape.Skip(1)) || region.Shape.Count == 0 || at + region.Shape[0] > width)
                {
                    throw Unfitting(part);
                }

                reader.CopyNext(joined[row].narrow(0, at, region.Shape[0]));
                at += region.Shape[0];
            }

            if (at != width)
            {
                throw Unfitting(part);
            }
        }

        return joined;
    }

    private static ScalarType Target(FileRegion region, ScalarType wanted) => IsFloatingPoint(region.Dtype) ? wanted : region.Dtype;

    private static bool IsFloatingPoint(ScalarType dtype)
    {
        using var none = empty([0], dtype: dtype);
        return none.is_floating_point();
    }

    private Tensor Joined(Part part)
    {
        try
        {
            return stack(part.Rows.Select(row => row.Count == 1 ? Tensor(row[0]) : cat([.. row.Select(Tensor)], 0)).ToArray(), 0);
        }
        catch (System.Runtime.InteropServices.ExternalException)
        {
            throw Unfitting(part);
        }
    }

    private static CheckpointException Unfitting(Part part) => new($"The pieces of '{part.Weight.Path}' ({part.Rows[0][0]}, …) have shapes that do not fit together.");

    private void CheckSame(Part part, ScalarType dtype)
    {
        foreach (var name in part.SameAs)
        {
            var (first, other) = (Tensor(part.Rows[0][0], dtype), Tensor(name, dtype));
            if (!first.shape.SequenceEqual(other.shape) || !first.eq(other).all().item<bool>())
            {
                throw new CheckpointException(
                    $"config.json ties '{name}' to '{part.Rows[0][0]}', but the checkpoint holds different values for them. If they are separate, say tie_word_embeddings: false.");
            }

            Forget(part.Rows[0][0]);
            Forget(name);
        }
    }

    private static string Listed(string what, IReadOnlyList<string> names) =>
        names.Count == 0 ? "" : $"{what}: {string.Join(", ", names.Take(5))}{(names.Count > 5 ? $" and {names.Count - 5} more" : "")}.";

    /// <summary>A weight and what of the checkpoint it is made of: the rows of a stack, or one tensor, which others may be the same as.</summary>
    private sealed record Part(Weight Weight, IReadOnlyList<IReadOnlyList<string>> Rows, bool IsStack, IReadOnlyList<string> SameAs);
}
