using System.IO.MemoryMappedFiles;
using System.Text;

namespace PeftServer.Engine.Weights.Gguf;

/// <summary>A tensor of a GGUF file. Shape as PyTorch has it: the last dimension is the one that lies together.</summary>
internal sealed record GgufTensor(string Name, GgufType Type, IReadOnlyList<long> Shape, long Offset, long ByteCount);

/// <summary>
/// A GGUF file, memory-mapped: metadata, and tensors in blocks. <see href="https://github.com/ggml-org/ggml/blob/master/docs/gguf.md"/>.
/// What a stranger's file says about sizes is held against the file before anything is allocated for it.
/// </summary>
internal sealed unsafe class GgufFile : IDisposable
{
    private const int MaxNameBytes = 65_535;

    /// <summary>Values that are there in float32 at once while another type is wanted: 16 MiB.</summary>
    private const long DecodedValues = 4 << 20;

    private readonly MemoryMappedFile _file;
    private readonly MemoryMappedViewAccessor _view;
    private readonly byte* _start;
    private readonly long _length;
    private readonly string _name;
    private long _at;

    private GgufFile(string path)
    {
        (_name, _length) = (Path.GetFileName(path), new FileInfo(path).Length);
        if (_length < 24)
        {
            throw Fault("it is shorter than a header");
        }

        _file = MemoryMappedFile.CreateFromFile(path, FileMode.Open, null, 0, MemoryMappedFileAccess.Read);
        _view = _file.CreateViewAccessor(0, 0, MemoryMappedFileAccess.Read);
        _view.SafeMemoryMappedViewHandle.AcquirePointer(ref _start);
        try
        {
            Read();
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>Values by key: <see cref="long"/>, <see cref="double"/>, <see cref="bool"/>, <see cref="string"/>, or a list of one of them.</summary>
    public Dictionary<string, object> Metadata { get; } = new(StringComparer.Ordinal);

    public Dictionary<string, GgufTensor> Tensors { get; } = new(StringComparer.Ordinal);

    /// <summary>Opens and checks a file. Throws <see cref="CheckpointException"/>.</summary>
    public static GgufFile Open(string path) => new(path);

    /// <summary>
    /// The GGUF file that a path means: the file itself, or the only one of a folder that holds no other weights. Null where there is
    /// none. Throws <see cref="CheckpointException"/> where it is not clear which.
    /// </summary>
    public static string? Find(string path)
    {
        if (File.Exists(path))
        {
            return path.EndsWith(".gguf", StringComparison.OrdinalIgnoreCase) ? path : null;
        }

        if (!Directory.Exists(path) || SafetensorsCheckpoint.IsIn(path) || PickleCheckpoint.IsIn(path))
        {
            return null;
        }

        var files = Directory.GetFiles(path, "*.gguf");
        return files switch
        {
            [] => null,
            [var one] => one,
            _ => throw new CheckpointException($"{path} holds {files.Length} GGUF files. Keep one, or name the file itself; parts of one model must be merged first (llama-gguf-split --merge)."),
        };
    }

    /// <summary>
    /// The values of a tensor: floating-point ones as they are stored, blocks decoded to <paramref name="decoded"/>, some rows at a time.
    /// </summary>
    public Tensor Tensor(string name, ScalarType decoded = ScalarType.Float32)
    {
        var tensor = Tensors.TryGetValue(name, out var found) ? found : throw new CheckpointException($"{_name} has no tensor '{name}'.");
        var result = empty(tensor.Shape.ToArray(), dtype: tensor.Type.Plain ?? decoded);
        if (tensor.Type.Plain is not null)
        {
            var target = (void*)Native.Aten.DataPointer(result);
            Buffer.MemoryCopy(_start + tensor.Offset, target, tensor.ByteCount, tensor.ByteCount);
            MappedPages.Forget((nint)(_start + tensor.Offset), tensor.ByteCount);
            return result;
        }

        using var scope = NewDisposeScope();
        var (columns, rows) = (tensor.Shape[^1], tensor.Shape.SkipLast(1).Aggregate(1L, (product, size) => product * size));
        var rowBytes = columns / tensor.Type.BlockSize * tensor.Type.BlockBytes;
        var flat = result.view(rows, columns);
        var most = Math.Clamp(DecodedValues / columns, 1, rows);
        for (var row = 0L; row < rows; row += most)
        {
            var count = Math.Min(most, rows - row);
            var some = decoded is ScalarType.Float32 ? flat.narrow(0, row, count) : empty([count, columns], dtype: ScalarType.Float32);
            Decode(tensor.Type, (nint)(_start + tensor.Offset) + (nint)(row * rowBytes), Native.Aten.DataPointer(some), count, (int)columns, checked((int)rowBytes));
            if (decoded is not ScalarType.Float32)
            {
                flat.narrow(0, row, count).copy_(some);
            }
        }

        MappedPages.Forget((nint)(_start + tensor.Offset), tensor.ByteCount);
        return result.MoveToOuterDisposeScope();
    }

    /// <summary>The values of a small tensor, without libtorch.</summary>
    public float[] Floats(string name)
    {
        var tensor = Tensors[name];
        var values = new float[tensor.Shape.Aggregate(1L, (product, size) => product * size)];
        tensor.Type.Decode(new ReadOnlySpan<byte>(_start + tensor.Offset, checked((int)tensor.ByteCount)), values);
        return values;
    }

    public void Dispose()
    {
        _view.SafeMemoryMappedViewHandle.ReleasePointer();
        _view.Dispose();
        _file.Dispose();
    }

    private static void Decode(GgufType type, nint source, nint target, long rows, int columns, int rowBytes) =>
        Parallel.For(0, rows, row => type.Decode(
            new ReadOnlySpan<byte>((byte*)source + (row * rowBytes), rowBytes), new Span<float>((float*)target + (row * columns), columns)));

    private void Read()
    {
        if (U32() != 0x46554747)
        {
            throw Fault("it does not begin with GGUF");
        }

        if (U32() is var version && version is not (2 or 3))
        {
            throw Fault($"its version is {version}; 2 and 3 are supported");
        }

        var (tensors, pairs) = (Count(8 + 4 + 8 + 4 + 8), Count(8 + 4 + 1));
        for (var i = 0L; i < pairs; i++)
        {
            var key = Text(MaxNameBytes);
            if (!Metadata.TryAdd(key, Value(U32(), isNested: false)))
            {
                throw Fault($"the key '{key}' is there twice");
            }
        }

        if (Metadata.GetValueOrDefault("split.count") is > 1L)
        {
            throw new CheckpointException($"{_name} is one part of a model. Merge the parts first (llama-gguf-split --merge).");
        }

        ReadTensors(tensors);
    }

    private void ReadTensors(long count)
    {
        var read = new List<(string Name, GgufType Type, long[] Shape, long Offset)>();
        for (var i = 0L; i < count; i++)
        {
            var name = Text(MaxNameBytes);
            var dimensions = U32();
            if (dimensions is 0 or > 4)
            {
                throw Fault($"'{name}' has {dimensions} dimensions");
            }

            var shape = new long[dimensions];
            for (var d = shape.Length - 1; d >= 0; d--)
            {
                shape[d] = I64(); // the fastest comes first
            }

            var type = U32();
            read.Add((name, GgufType.Of(type) ?? throw Fault($"'{name}' has the type {type}, which is not supported"), shape, I64()));
        }

        var alignment = Metadata.TryGetValue("general.alignment", out var said) ? said as long? ?? -1 : 32;
        if (alignment is <= 0 or > 1 << 20)
        {
            throw Fault("general.alignment is no alignment");
        }

        var start = (_at + alignment - 1) / alignment * alignment;
        foreach (var (name, type, shape, offset) in read)
        {
            var bytes = BytesOf(name, type, shape);
            if (offset < 0 || offset % alignment != 0 || start > _length - offset || bytes > _length - start - offset)
            {
                throw Fault($"'{name}' lies outside of the file");
            }

            if (!Tensors.TryAdd(name, new GgufTensor(name, type, shape, start + offset, bytes)))
            {
                throw Fault($"'{name}' is there twice");
            }
        }
    }

    private long BytesOf(string name, GgufType type, long[] shape)
    {
        var elements = 1L;
        foreach (var size in shape)
        {
            if (size <= 0 || size > int.MaxValue || elements > long.MaxValue / 8 / size)
            {
                throw Fault($"'{name}' has the shape [{string.Join(", ", shape)}]");
            }

            elements *= size;
        }

        return shape[^1] % type.BlockSize == 0
            ? elements / type.BlockSize * type.BlockBytes
            : throw Fault($"a row of '{name}' has {shape[^1]} values, which are no whole blocks of {type.BlockSize}");
    }

    private object Value(uint type, bool isNested) => type switch
    {
        0 => (long)*Take(1),
        1 => (long)*(sbyte*)Take(1),
        2 => (long)*(ushort*)Take(2),
        3 => (long)*(short*)Take(2),
        4 => (long)*(uint*)Take(4),
        5 => (long)*(int*)Take(4),
        6 => (double)*(float*)Take(4),
        7 => *Take(1) != 0,
        8 => Text(int.MaxValue),
        9 when !isNested => Values(),
        10 or 11 => I64(),
        12 => *(double*)Take(8),
        _ => throw Fault($"a value has the type {type}"),
    };

    private object Values()
    {
        var type = U32();
        var count = Count(type is 8 or 10 or 11 or 12 ? 8 : type is 2 or 3 ? 2 : type is 4 or 5 or 6 ? 4 : 1);
        return type switch
        {
            8 => Many<string>(type, count),
            6 or 12 => Many<double>(type, count),
            7 => Many<bool>(type, count),
            _ => Many<long>(type, count),
        };
    }

    private List<T> Many<T>(uint type, long count)
    {
        var list = new List<T>((int)Math.Min(count, int.MaxValue));
        for (var i = 0L; i < count; i++)
        {
            list.Add((T)Value(type, isNested: true));
        }

        return list;
    }

    /// <summary>A number of things that take at least so many bytes each: no more than the rest of the file has room for.</summary>
    private long Count(int bytesEach)
    {
        var count = I64();
        return count >= 0 && count <= (_length - _at) / bytesEach && count <= int.MaxValue ? count : throw Fault($"it claims to hold {(ulong)count} of something");
    }

    private string Text(int limit)
    {
        var bytes = I64();
        if (bytes < 0 || bytes > limit || bytes > _length - _at)
        {
            throw Fault("a text is longer than the file");
        }

        return Encoding.UTF8.GetString(Take(bytes), (int)bytes);
    }

    private uint U32() => *(uint*)Take(4);

    private long I64() => *(long*)Take(8);

    private byte* Take(long bytes)
    {
        if (bytes > _length - _at)
        {
            throw Fault("it ends too early");
        }

        var at = _start + _at;
        _at += bytes;
        return at;
    }

    private CheckpointException Fault(string what) => new($"{_name} is not a valid GGUF file: {what}.");
}
