using System.IO.Compression;
using System.Text;

namespace PeftServer.Engine.Weights;

/// <summary>
/// A dictionary of tensors as <c>torch.save</c> writes it (<c>.bin</c>, <c>.pt</c>): a zip of a pickle and of raw storages. Nothing
/// is ever executed: the pickle may name tensors, storages and ordered dictionaries, and anything else is an error.
/// </summary>
public static class TorchFile
{
    private const long MaxPickleBytes = 64_000_000;
    private const long MaxStorageBytes = 64L << 30;

    /// <summary>All tensors of the file, on the CPU; the caller disposes of them. Throws <see cref="CheckpointException"/>.</summary>
    public static IReadOnlyDictionary<string, Tensor> Read(string path)
    {
        try
        {
            using var zip = ZipFile.OpenRead(path);
            var pickle = zip.Entries.FirstOrDefault(entry => entry.Name == "data.pkl")
                ?? throw new CheckpointException($"{Path.GetFileName(path)} holds no data.pkl, so it is not what torch.save writes.");
            var root = pickle.FullName[..^"data.pkl".Length];
            if (zip.GetEntry(root + "byteorder") is { } order && Encoding.ASCII.GetString(Bytes(order, 16)).Trim() != "little")
            {
                throw new CheckpointException($"{Path.GetFileName(path)} was written on a big-endian machine. Save it again on a little-endian one.");
            }

            using var scope = NewDisposeScope();
            var tensors = new PickleReader(Bytes(pickle, MaxPickleBytes)).ReadTensors();
            var storages = new Dictionary<string, Tensor>();
            return tensors.ToDictionary(entry => entry.Key, entry => Build(entry.Key, entry.Value, zip, root, storages).MoveToOuterDisposeScope());
        }
        catch (Exception e) when (e is InvalidDataException or EndOfStreamException)
        {
            throw new CheckpointException(
                $"{Path.GetFileName(path)} is not what torch.save writes since PyTorch 1.6: {e.Message} Load and save it once with a newer PyTorch.", e);
        }
    }

    private static Tensor Build(string name, PickledTensor pickled, ZipArchive zip, string root, Dictionary<string, Tensor> storages)
    {
        var dtype = DtypeOf(pickled.Storage.Kind);
        if (!storages.TryGetValue(pickled.Storage.Key, out var storage))
        {
            var entry = zip.GetEntry($"{root}data/{pickled.Storage.Key}") ?? throw new CheckpointException($"The storage of '{name}' is missing.");
            var bytes = Bytes(entry, MaxStorageBytes);
            storage = empty(bytes.Length / SizeOf(dtype), dtype: dtype);
            storage.bytes = bytes;
            storages[pickled.Storage.Key] = storage;
        }

        // The furthest element must lie in the storage: sizes and strides come from the file.
        var last = pickled.Offset;
        for (var i = 0; i < pickled.Shape.Length; i++)
        {
            if (pickled.Shape[i] < 0 || pickled.Strides[i] < 0)
            {
                throw new CheckpointException($"'{name}' has a negative size.");
            }

            last = checked(last + (Math.Max(0, pickled.Shape[i] - 1) * pickled.Strides[i]));
        }

        return pickled.Offset < 0 || storage.dtype != dtype || (last >= storage.numel() && !pickled.Shape.Contains(0))
            ? throw new CheckpointException($"'{name}' reaches beyond its storage.")
            : storage.as_strided(pickled.Shape, pickled.Strides, pickled.Offset).clone();
    }

    private static byte[] Bytes(ZipArchiveEntry entry, long limit)
    {
        if (entry.Length > Math.Min(limit, Array.MaxLength))
        {
            throw new CheckpointException($"{entry.FullName} is larger than {limit} bytes.");
        }

        var bytes = new byte[entry.Length];
        using var stream = entry.Open();
        stream.ReadExactly(bytes);
        return bytes;
    }

    private static long SizeOf(ScalarType dtype)
    {
        using var one = empty(1, dtype: dtype);
        return one.ElementSize;
    }

    private static ScalarType DtypeOf(string storage) => storage switch
    {
        "FloatStorage" => ScalarType.Float32,
        "DoubleStorage" => ScalarType.Float64,
        "HalfStorage" => ScalarType.Float16,
        "BFloat16Storage" => ScalarType.BFloat16,
        "LongStorage" => ScalarType.Int64,
        "IntStorage" => ScalarType.Int32,
        "ShortStorage" => ScalarType.Int16,
        "CharStorage" => ScalarType.Int8,
        "ByteStorage" => ScalarType.Byte,
        "BoolStorage" => ScalarType.Bool,
        _ => throw new CheckpointException($"Storages of the kind {storage} are not supported."),
    };
}
