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

        foreach (var (weight, names) in placement.Whole)
        {
            using var scope = NewDisposeScope();
            if (shared is not null && plan.Quantization(weight) is BaseQuantization.None)
            {
                weight.Set(shared.Of(names[0], dtype, device, () => Loaded(Stored(names, dtype), device, dtype)));
            }
            else
            {
                Set(weight, Stored(names, dtype), device, dtype, plan.Quantization(weight));
            }
        }

        foreach (var (weight, rows) in placement.InPieces)
        {
            using var scope = NewDisposeScope();
            Set(weight, Joined(weight, rows), device, dtype, plan.Quantization(weight));
        }

        return placement;
    }

    public abstract void Dispose();

    /// <summary>The tensor that all of these names hold.</summary>
    private Tensor Stored(IReadOnlyList<string> names, ScalarType dtype)
    {
        var stored = Tensor(names[0], dtype);
        foreach (var name in names.Skip(1))
        {
            CheckSame(stored, names[0], Tensor(name, dtype), name);
        }

        return stored;
    }

    private static Tensor Loaded(Tensor stored, Device device, ScalarType dtype) => stored.to(stored.is_floating_point() ? dtype : stored.dtype, device);

    private static void Set(Weight weight, Tensor stored, Device device, ScalarType dtype, BaseQuantization quantization)
    {
        var loaded = Loaded(stored, device, dtype);
        if (quantization is BaseQuantization.None)
        {
            weight.Set(loaded.MoveToOuterDisposeScope());
        }
        else
        {
            weight.Set(PackedMatrix.Pack(loaded, quantization));
        }
    }

    private Tensor Joined(Weight weight, IReadOnlyList<IReadOnlyList<string>> rows)
    {
        try
        {
            return stack(rows.Select(row => row.Count == 1 ? Tensor(row[0]) : cat([.. row.Select(Tensor)], 0)).ToArray(), 0);
        }
        catch (System.Runtime.InteropServices.ExternalException)
        {
            throw new CheckpointException($"The pieces of '{weight.Path}' ({rows[0][0]}, …) have shapes that do not fit together.");
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

    private static string Listed(string what, IReadOnlyList<string> names) =>
        names.Count == 0 ? "" : $"{what}: {string.Join(", ", names.Take(5))}{(names.Count > 5 ? $" and {names.Count - 5} more" : "")}.";
}
