using System.Buffers.Binary;
using System.IO.Compression;
using System.Text;
using PeftServer.Engine.Native;

namespace PeftServer.Engine.Weights.Pickle;

/// <summary>
/// Writes a dictionary of tensors as <c>torch.save</c> does since PyTorch 1.6: an archive of a pickle, byte for byte the one Python
/// writes, and of raw storages. For readers that take nothing else; safetensors is the better form.
/// </summary>
public static class StateDictWriter
{
    /// <summary>Python's pickler puts so many entries of a dictionary down at once.</summary>
    private const int BatchSize = 1000;

    /// <summary>Writes <paramref name="tensors"/> (on any device) in their order, beside <paramref name="path"/> first and then in its place.</summary>
    public static void Write(string path, IReadOnlyDictionary<string, Tensor> tensors)
    {
        var temporary = $"{path}.{Environment.ProcessId}.tmp";
        try
        {
            using (var zip = ZipFile.Open(temporary, ZipArchiveMode.Create))
            {
                var root = Path.GetFileNameWithoutExtension(path);
                Add(zip, $"{root}/data.pkl", Program(tensors));
                Add(zip, $"{root}/byteorder", "little"u8.ToArray());
                var index = 0;
                foreach (var tensor in tensors.Values)
                {
                    AddStorage(zip, $"{root}/data/{index++}", tensor);
                }

                Add(zip, $"{root}/version", "3\n"u8.ToArray());
            }

            File.Move(temporary, path, overwrite: true);
        }
        finally
        {
            File.Delete(temporary);
        }
    }

    /// <summary>The pickle: a dictionary of calls that build each tensor from its storage.</summary>
    internal static byte[] Program(IReadOnlyDictionary<string, Tensor> tensors)
    {
        var program = new PickleProgram();
        program.Op(0x80).Byte(2).Op('}').Remember(null);
        var index = 0;
        foreach (var batch in tensors.Chunk(BatchSize))
        {
            program.OpIf(batch.Length > 1, '(');
            foreach (var (name, tensor) in batch)
            {
                Entry(program, name, tensor, index++);
            }

            program.Op(batch.Length > 1 ? 'u' : 's');
        }

        return program.Op('.').ToArray();
    }

    private static void Entry(PickleProgram program, string name, Tensor tensor, int index)
    {
        program.Text(name, isNew: true).Global("torch._utils", "_rebuild_tensor_v2").Op('(').Op('(');
        program.Text("storage").Global("torch", StorageOf(tensor.dtype)).Text($"{index}", isNew: true).Text("cpu").Int(tensor.numel());
        program.Op('t').Remember(null).Op('Q').Int(0).Tuple(tensor.shape).Tuple(Strides(tensor.shape)).Op(0x89);
        program.Global("collections", "OrderedDict").Op(')').Op('R').Remember(null);
        program.Op('t').Remember(null).Op('R').Remember(null);
    }

    private static long[] Strides(long[] shape)
    {
        var strides = new long[shape.Length];
        var step = 1L;
        for (var i = shape.Length - 1; i >= 0; i--)
        {
            strides[i] = step;
            step *= Math.Max(1, shape[i]);
        }

        return strides;
    }

    private static void Add(ZipArchive zip, string name, byte[] bytes)
    {
        using var stream = zip.CreateEntry(name, CompressionLevel.NoCompression).Open();
        stream.Write(bytes);
    }

    private static unsafe void AddStorage(ZipArchive zip, string name, Tensor tensor)
    {
        using var scope = NewDisposeScope();
        using var frozen = no_grad();
        var local = tensor.cpu().contiguous();
        using var stream = zip.CreateEntry(name, CompressionLevel.NoCompression).Open();
        var data = (byte*)Aten.DataPointer(local);
        for (var left = local.numel() * local.ElementSize; left > 0;)
        {
            var count = (int)Math.Min(left, 1 << 26);
            stream.Write(new ReadOnlySpan<byte>(data, count));
            data += count;
            left -= count;
        }
    }

    private static string StorageOf(ScalarType dtype) => dtype switch
    {
        ScalarType.Float32 => "FloatStorage",
        ScalarType.Float64 => "DoubleStorage",
        ScalarType.Float16 => "HalfStorage",
        ScalarType.BFloat16 => "BFloat16Storage",
        ScalarType.Int64 => "LongStorage",
        ScalarType.Int32 => "IntStorage",
        ScalarType.Byte => "ByteStorage",
        ScalarType.Bool => "BoolStorage",
        _ => throw new NotSupportedException($"Tensors of {dtype} are not written as pickles. Use safetensors."),
    };

    /// <summary>The bytes of a pickle, and what Python's pickler remembers of it: a value that came before is named by its number.</summary>
    private sealed class PickleProgram
    {
        private readonly List<byte> _bytes = [];
        private readonly Dictionary<string, int> _known = [];
        private int _remembered;

        public byte[] ToArray() => [.. _bytes];

        public PickleProgram Op(int code) => Byte((byte)code);

        public PickleProgram OpIf(bool condition, char code) => condition ? Op(code) : this;

        public PickleProgram Byte(byte value)
        {
            _bytes.Add(value);
            return this;
        }

        public PickleProgram Remember(string? key)
        {
            var at = _remembered++;
            if (key is not null)
            {
                _known[key] = at;
            }

            return at < 256 ? Op('q').Byte((byte)at) : Op('r').Word(at);
        }

        public PickleProgram Text(string text, bool isNew = false)
        {
            if (!isNew && _known.TryGetValue(text, out var at))
            {
                return Recall(at);
            }

            var bytes = Encoding.UTF8.GetBytes(text);
            Op('X').Word(bytes.Length);
            _bytes.AddRange(bytes);
            return Remember(isNew ? null : text);
        }

        public PickleProgram Global(string module, string name)
        {
            var key = $"{module}\n{name}\n";
            if (_known.TryGetValue(key, out var at))
            {
                return Recall(at);
            }

            Op('c');
            _bytes.AddRange(Encoding.ASCII.GetBytes(key));
            return Remember(key);
        }

        public PickleProgram Int(long value)
        {
            switch (value)
            {
                case >= 0 and < 256:
                    return Op('K').Byte((byte)value);
                case >= 0 and < 65536:
                    return Op('M').Byte((byte)value).Byte((byte)(value >> 8));
                case <= int.MaxValue:
                    return Op('J').Word((int)value);
                default:
                    var bytes = new System.Numerics.BigInteger(value).ToByteArray();
                    Op(0x8a).Byte((byte)bytes.Length);
                    _bytes.AddRange(bytes);
                    return this;
            }
        }

        public PickleProgram Tuple(long[] values)
        {
            if (values.Length == 0)
            {
                return Op(')');
            }

            OpIf(values.Length > 3, '(');
            Array.ForEach(values, value => Int(value));
            return Op(values.Length > 3 ? 't' : 0x84 + values.Length).Remember(null);
        }

        private PickleProgram Recall(int at) => at < 256 ? Op('h').Byte((byte)at) : Op('j').Word(at);

        private PickleProgram Word(int value)
        {
            Span<byte> bytes = stackalloc byte[4];
            BinaryPrimitives.WriteInt32LittleEndian(bytes, value);
            _bytes.AddRange(bytes);
            return this;
        }
    }
}
