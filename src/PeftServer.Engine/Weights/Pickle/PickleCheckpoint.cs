using System.IO.Compression;
using PeftServer.Engine.Weights.Pickle;

namespace PeftServer.Engine.Weights;

/// <summary>
/// The tensors of a folder with PyTorch's <c>.bin</c> files, as <c>torch.save</c> has written them since 1.6: archives of a pickle and
/// of raw storages. Tensors are all that is read; see <see cref="StateDictReader"/>.
/// </summary>
public sealed class PickleCheckpoint : Checkpoint
{
    public const string SingleFile = "pytorch_model.bin";
    public const string Index = "pytorch_model.bin.index.json";

    /// <summary>A pickle that names the tensors of a model is small.</summary>
    private const long MaxProgramBytes = 256_000_000;

    private readonly List<ZipArchive> _archives = [];
    private readonly Dictionary<string, (ZipArchive Archive, string Root, StorageView Tensor)> _tensors = new(StringComparer.Ordinal);

    private PickleCheckpoint(string folder, IEnumerable<string> names)
    {
        Place = folder;
        try
        {
            foreach (var name in names)
            {
                Add(Path.Combine(folder, name));
            }
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    protected override string Place { get; }

    public override IEnumerable<string> Names => _tensors.Keys;

    /// <summary>Whether <paramref name="folder"/> holds such files.</summary>
    public static bool IsIn(string folder) => File.Exists(Path.Combine(folder, SingleFile)) || File.Exists(Path.Combine(folder, Index));

    /// <summary>Opens the files in <paramref name="folder"/>. Throws <see cref="CheckpointException"/>.</summary>
    public static new PickleCheckpoint Open(string folder) =>
        new(folder, File.Exists(Path.Combine(folder, SingleFile)) ? [SingleFile] : SafetensorsCheckpoint.Shards(folder, Index));

    /// <summary>Opens one such file. Throws <see cref="CheckpointException"/>.</summary>
    public static PickleCheckpoint OpenFile(string path) => new(Path.GetDirectoryName(Path.GetFullPath(path))!, [Path.GetFileName(path)]);

    public override unsafe Tensor Tensor(string name)
    {
        var (archive, root, tensor) = _tensors[name];
        using var scope = NewDisposeScope();
        if (tensor.Shape.Contains(0))
        {
            return empty(tensor.Shape.ToArray(), dtype: tensor.Dtype).MoveToOuterDisposeScope();
        }

        // What the archive holds is known before there is room for what the pickle claims.
        var itemBytes = empty([0], dtype: tensor.Dtype).element_size();
        var entry = archive.GetEntry($"{root}data/{tensor.Storage}") ?? throw Fault($"the storage '{tensor.Storage}' of '{name}' is missing");
        if (entry.CompressedLength != entry.Length || entry.Length / itemBytes < tensor.StorageLength)
        {
            throw Fault($"the storage '{tensor.Storage}' of '{name}' is compressed or too short");
        }

        // Of the storage, what lies between the tensor's first and last element.
        var count = 1 + tensor.Shape.Zip(tensor.Strides, (size, step) => (size - 1) * step).Sum();
        var values = empty([count], dtype: tensor.Dtype);
        try
        {
            using var stream = entry.Open();
            Skip(stream, tensor.Offset * itemBytes);
            var target = (byte*)Native.Aten.DataPointer(values);
            for (var left = count * itemBytes; left > 0;)
            {
                var read = stream.Read(new Span<byte>(target, (int)Math.Min(left, 1 << 24)));
                if (read == 0)
                {
                    throw Fault($"the storage '{tensor.Storage}' of '{name}' ends too early");
                }

                target += read;
                left -= read;
            }
        }
        catch (Exception e) when (IsOfDamage(e))
        {
            throw Damaged(entry, e);
        }

        return values.as_strided(tensor.Shape.ToArray(), tensor.Strides.ToArray()).contiguous().MoveToOuterDisposeScope();
    }

    public override void Dispose() => _archives.ForEach(archive => archive.Dispose());

    private void Add(string path)
    {
        ZipArchive archive;
        ZipArchiveEntry? pickle;
        try
        {
            _archives.Add(archive = ZipFile.OpenRead(path));
            pickle = archive.Entries.FirstOrDefault(entry => entry.FullName == "data.pkl" || entry.FullName.EndsWith("/data.pkl", StringComparison.Ordinal));
        }
        catch (Exception e) when (IsOfDamage(e))
        {
            throw new CheckpointException($"{Path.GetFileName(path)} is no archive as torch.save writes it since PyTorch 1.6. Save the model again, or take its safetensors.", e);
        }

        if (pickle is null)
        {
            throw Fault($"{Path.GetFileName(path)} holds no data.pkl");
        }

        if (pickle.Length > MaxProgramBytes || pickle.CompressedLength != pickle.Length)
        {
            throw Fault($"{Path.GetFileName(path)}: data.pkl is too large or compressed");
        }

        var root = pickle.FullName[..^"data.pkl".Length];
        if (archive.GetEntry($"{root}byteorder") is { } order && Text(order) is var endian && endian != "little")
        {
            throw Fault($"{Path.GetFileName(path)}: its byte order is '{endian}'");
        }

        foreach (var (name, tensor) in new StateDictReader(Bytes(pickle), Path.GetFileName(path)).Read())
        {
            if (!_tensors.TryAdd(name, (archive, root, tensor)))
            {
                throw Fault($"'{name}' is in two files");
            }
        }
    }

    private static string Text(ZipArchiveEntry entry)
    {
        try
        {
            using var reader = new StreamReader(entry.Open());
            var text = new char[16];
            return new string(text, 0, reader.ReadBlock(text));
        }
        catch (Exception e) when (IsOfDamage(e))
        {
            throw Damaged(entry, e);
        }
    }

    // Never more than the archive says, whatever comes out of it.
    private static byte[] Bytes(ZipArchiveEntry entry)
    {
        try
        {
            using var stream = entry.Open(); // which holds the size against the file's
            var bytes = new byte[entry.Length];
            stream.ReadExactly(bytes);
            return bytes;
        }
        catch (Exception e) when (IsOfDamage(e))
        {
            throw Damaged(entry, e);
        }
    }

    /// <summary>What .NET's reader of archives throws where bytes are not what they should be.</summary>
    private static bool IsOfDamage(Exception e) => e is InvalidDataException or IOException or NotSupportedException or ArgumentException or ArithmeticException;

    private static CheckpointException Damaged(ZipArchiveEntry entry, Exception e) => new($"{entry.FullName} cannot be read: the archive is damaged.", e);

    private static void Skip(Stream stream, long bytes)
    {
        var buffer = new byte[(int)Math.Min(bytes, 1 << 20)];
        while (bytes > 0)
        {
            var read = stream.Read(buffer, 0, (int)Math.Min(bytes, buffer.Length));
            if (read == 0)
            {
                return; // what follows says that the storage is too short
            }

            bytes -= read;
        }
    }

    private CheckpointException Fault(string what) => new($"The checkpoint in {Place} cannot be read: {what}.");
}
