using System.Buffers.Binary;
using System.Text;
using System.Text.Json;

namespace PeftServer.Engine.Weights;

/// <summary>One tensor of a safetensors file. Offsets are bytes from the end of the header.</summary>
public sealed record SafetensorsEntry(string Name, string Dtype, IReadOnlyList<long> Shape, long Begin, long End)
{
    public long ByteCount => End - Begin;

    public long ElementCount => Shape.Aggregate(1L, (product, size) => product * size);
}

/// <summary>
/// The header of a safetensors file, checked by every rule of the format: JSON object, no name twice, known types, sizes that
/// follow from shapes, offsets that cover the data without a hole or an overlap. Reads no tensor and needs no libtorch.
/// <see href="https://github.com/huggingface/safetensors#format"/>
/// </summary>
public sealed class SafetensorsHeader
{
    /// <summary>The format's own limit.</summary>
    public const long MaxHeaderBytes = 100_000_000;

    private const int MaxTensors = 1_000_000;

    /// <summary>Bits of an element by type name, in the order the format sorts them: wide types come first in a file.</summary>
    internal static readonly IReadOnlyList<(string Name, int Bits)> Dtypes =
    [
        ("BOOL", 8), ("U8", 8), ("I8", 8), ("F8_E5M2", 8), ("F8_E4M3", 8), ("F8_E8M0", 8), ("I16", 16), ("U16", 16), ("F16", 16),
        ("BF16", 16), ("I32", 32), ("U32", 32), ("F32", 32), ("C64", 64), ("F64", 64), ("I64", 64), ("U64", 64),
    ];

    private readonly Dictionary<string, SafetensorsEntry> _entries;

    private SafetensorsHeader(Dictionary<string, SafetensorsEntry> entries, Dictionary<string, string> metadata, long dataStart)
    {
        (_entries, Metadata, DataStart) = (entries, metadata, dataStart);
    }

    public IReadOnlyDictionary<string, SafetensorsEntry> Entries => _entries;

    public IReadOnlyDictionary<string, string> Metadata { get; }

    /// <summary>Where in the file the tensors begin.</summary>
    public long DataStart { get; }

    /// <summary>Reads and checks the header of <paramref name="path"/>. Throws <see cref="CheckpointException"/>.</summary>
    public static SafetensorsHeader Read(string path, long maxHeaderBytes = MaxHeaderBytes)
    {
        using var file = File.OpenHandle(path);
        var length = RandomAccess.GetLength(file);
        Span<byte> prefix = stackalloc byte[8];
        if (length < 8 || RandomAccess.Read(file, prefix, 0) < 8)
        {
            throw Fault(path, $"it has {length} bytes, too few for a header");
        }

        var size = BinaryPrimitives.ReadUInt64LittleEndian(prefix);
        if (size > (ulong)maxHeaderBytes)
        {
            throw Fault(path, $"its header claims {size} bytes; at most {maxHeaderBytes} are accepted");
        }

        if ((long)size > length - 8)
        {
            throw Fault(path, $"its header claims {size} bytes, but the file ends after {length}");
        }

        var header = new byte[size];
        for (var read = 0; read < header.Length;)
        {
            var count = RandomAccess.Read(file, header.AsSpan(read), 8 + read);
            read += count > 0 ? count : throw Fault(path, "it ends inside its header");
        }

        return Parse(path, header, length);
    }

    private static SafetensorsHeader Parse(string path, byte[] header, long fileLength)
    {
        if (header is not [(byte)'{', ..])
        {
            throw Fault(path, "its header does not start with '{'");
        }

        try
        {
            using var json = JsonDocument.Parse(header, new JsonDocumentOptions { MaxDepth = 8 });
            var dataBytes = fileLength - 8 - header.Length;
            var entries = new Dictionary<string, SafetensorsEntry>();
            var metadata = new Dictionary<string, string>();
            var metadataSeen = false;
            foreach (var member in json.RootElement.EnumerateObject())
            {
                if (member.Name == "__metadata__")
                {
                    metadata = metadataSeen ? throw Fault(path, "it has two __metadata__") : Strings(path, member.Value);
                    metadataSeen = true;
                }
                else if (entries.Count == MaxTensors)
                {
                    throw Fault(path, $"it holds more than {MaxTensors} tensors");
                }
                else if (!entries.TryAdd(member.Name, Entry(path, member.Name, member.Value)))
                {
                    throw Fault(path, $"it names '{member.Name}' twice");
                }
            }

            CheckLayout(path, entries.Values, dataBytes);
            return new SafetensorsHeader(entries, metadata, 8 + header.Length);
        }
        catch (Exception e) when (e is JsonException or DecoderFallbackException or InvalidOperationException)
        {
            throw Fault(path, $"its header is no valid JSON: {e.Message}");
        }
    }

    private static Dictionary<string, string> Strings(string path, JsonElement value)
    {
        if (value.ValueKind is not JsonValueKind.Object || value.EnumerateObject().Any(entry => entry.Value.ValueKind is not JsonValueKind.String))
        {
            throw Fault(path, "its __metadata__ is not an object of strings");
        }

        var strings = new Dictionary<string, string>();
        foreach (var entry in value.EnumerateObject())
        {
            strings[entry.Name] = entry.Value.GetString()!;
        }

        return strings;
    }

    private static SafetensorsEntry Entry(string path, string name, JsonElement value)
    {
        if (value.ValueKind is not JsonValueKind.Object
            || !value.TryGetProperty("dtype", out var dtype) || dtype.ValueKind is not JsonValueKind.String
            || !value.TryGetProperty("shape", out var shape) || shape.ValueKind is not JsonValueKind.Array
            || !value.TryGetProperty("data_offsets", out var offsets) || offsets.ValueKind is not JsonValueKind.Array
            || offsets.GetArrayLength() != 2 || value.EnumerateObject().Count() != 3)
        {
            throw Fault(path, $"'{name}' does not have just dtype, shape and two data_offsets");
        }

        var bits = Dtypes.FirstOrDefault(known => known.Name == dtype.GetString()).Bits;
        if (bits == 0)
        {
            throw Fault(path, $"'{name}' has the unknown dtype '{dtype.GetString()}'");
        }

        var sizes = shape.EnumerateArray().Select(size => Natural(path, name, size)).ToArray();
        var (begin, end) = (Natural(path, name, offsets[0]), Natural(path, name, offsets[1]));
        try
        {
            var bytes = checked(sizes.Aggregate(1L, (product, size) => checked(product * size)) * bits / 8);
            return end - begin == bytes && begin <= end
                ? new SafetensorsEntry(name, dtype.GetString()!, sizes, begin, end)
                : throw Fault(path, $"'{name}' of shape [{string.Join(", ", sizes)}] needs {bytes} bytes, but its offsets are {begin} to {end}");
        }
        catch (OverflowException)
        {
            throw Fault(path, $"'{name}' is larger than any file");
        }
    }

    private static long Natural(string path, string name, JsonElement value) =>
        value.ValueKind is JsonValueKind.Number && value.TryGetInt64(out var number) && number >= 0
            ? number
            : throw Fault(path, $"'{name}' has a size or offset that is no natural number: {value}");

    private static void CheckLayout(string path, IEnumerable<SafetensorsEntry> entries, long dataBytes)
    {
        var at = 0L;
        foreach (var entry in entries.OrderBy(entry => entry.Begin).ThenBy(entry => entry.End))
        {
            at = entry.Begin == at ? entry.End : throw Fault(path, $"'{entry.Name}' begins at {entry.Begin}, where {at} is due");
        }

        if (at != dataBytes)
        {
            throw Fault(path, $"its tensors end at {at}, but it holds {dataBytes} bytes of data");
        }
    }

    private static CheckpointException Fault(string path, string what) => new($"{Path.GetFileName(path)} is not a valid safetensors file: {what}.");
}

/// <summary>A checkpoint cannot be used; the message names the file, the tensor or field, and what is wrong.</summary>
public sealed class CheckpointException : Exception
{
    public CheckpointException(string message)
        : base(message)
    {
    }

    public CheckpointException(string message, Exception inner)
        : base(message, inner)
    {
    }
}
