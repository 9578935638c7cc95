using System.Buffers.Binary;
using System.Text;

namespace PeftServer.Engine.Weights.Pickle;

/// <summary>A tensor of a pickle: a view of a storage, which is a file of the archive.</summary>
internal sealed record StorageView(string Storage, ScalarType Dtype, long StorageLength, long Offset, IReadOnlyList<long> Shape, IReadOnlyList<long> Strides);

/// <summary>
/// Reads the pickle of a state dict: names and tensors. A pickle is a program, and a stranger's; this runs the few instructions that
/// torch.save writes for tensors, knows the few functions that put a tensor together, and refuses everything else. Nothing is called.
/// </summary>
internal sealed class StateDictReader(byte[] program, string file)
{
    private const int MaxDepth = 100_000;

    private static readonly Dictionary<string, ScalarType> Storages = new()
    {
        ["torch.FloatStorage"] = ScalarType.Float32,
        ["torch.HalfStorage"] = ScalarType.Float16,
        ["torch.BFloat16Storage"] = ScalarType.BFloat16,
        ["torch.DoubleStorage"] = ScalarType.Float64,
        ["torch.LongStorage"] = ScalarType.Int64,
        ["torch.IntStorage"] = ScalarType.Int32,
        ["torch.ShortStorage"] = ScalarType.Int16,
        ["torch.CharStorage"] = ScalarType.Int8,
        ["torch.ByteStorage"] = ScalarType.Byte,
        ["torch.BoolStorage"] = ScalarType.Bool,
    };

    private static readonly HashSet<string> Functions =
        ["collections.OrderedDict", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter", "torch.Size"];

    private readonly List<object?> _stack = [];
    private readonly List<int> _marks = [];
    private readonly Dictionary<int, object?> _memo = [];
    private int _at;

    private sealed record Global(string Name);

    private sealed record Storage(ScalarType Dtype, string Key, long Length);

    /// <summary>The tensors by name. Throws <see cref="CheckpointException"/> for a pickle that holds anything else.</summary>
    public Dictionary<string, StorageView> Read()
    {
        if (Run() is not Dictionary<object, object?> dictionary)
        {
            throw Fault("it holds no dictionary of tensors");
        }

        var tensors = new Dictionary<string, StorageView>(StringComparer.Ordinal);
        foreach (var (key, value) in dictionary)
        {
            if (key is not string name || value is not StorageView tensor)
            {
                throw Fault($"'{key}' is no tensor");
            }

            tensors[name] = tensor;
        }

        return tensors;
    }

    private object? Run()
    {
        while (true)
        {
            switch (Byte())
            {
                case 0x80: // PROTO
                    if (Byte() > 5)
                    {
                        throw Fault("its protocol is not supported");
                    }

                    break;
                case 0x95: // FRAME
                    _ = Take(8);
                    break;
                case (byte)'.':
                    return Pop();
                case (byte)'(':
                    _marks.Add(_stack.Count);
                    break;
                case (byte)'}':
                    Push(new Dictionary<object, object?>());
                    break;
                case (byte)']':
                    Push(new List<object?>());
                    break;
                case (byte)')':
                    Push(Array.Empty<object?>());
                    break;
                case (byte)'t':
                    Push(PopToMark());
                    break;
                case 0x85 or 0x86 or 0x87: // TUPLE1 to 3
                    Push(Pop(program[_at - 1] - 0x84));
                    break;
                case (byte)'N':
                    Push(null);
                    break;
                case 0x88:
                    Push(true);
                    break;
                case 0x89:
                    Push(false);
                    break;
                case (byte)'J':
                    Push((long)BinaryPrimitives.ReadInt32LittleEndian(Take(4)));
                    break;
                case (byte)'K':
                    Push((long)Byte());
                    break;
                case (byte)'M':
                    Push((long)BinaryPrimitives.ReadUInt16LittleEndian(Take(2)));
                    break;
                case 0x8a: // LONG1
                    Push(Long(Take(Byte())));
                    break;
                case (byte)'G':
                    Push(BinaryPrimitives.ReadDoubleBigEndian(Take(8)));
                    break;
                case (byte)'X':
                    Push(Encoding.UTF8.GetString(Take(BinaryPrimitives.ReadUInt32LittleEndian(Take(4)))));
                    break;
                case 0x8c: // SHORT_BINUNICODE
                    Push(Encoding.UTF8.GetString(Take(Byte())));
                    break;
                case (byte)'q':
                    _memo[Byte()] = Peek();
                    break;
                case (byte)'r':
                    Memoize(BinaryPrimitives.ReadUInt32LittleEndian(Take(4)));
                    break;
                case 0x94: // MEMOIZE
                    _memo[_memo.Count] = Peek();
                    break;
                case (byte)'h':
                    Push(Recall(Byte()));
                    break;
                case (byte)'j':
                    Push(Recall(BinaryPrimitives.ReadUInt32LittleEndian(Take(4))));
                    break;
                case (byte)'c':
                    Push(Known($"{Line()}.{Line()}"));
                    break;
                case 0x93: // STACK_GLOBAL
                    var names = Pop(2);
                    Push(Known($"{names[0]}.{names[1]}"));
                    break;
                case (byte)'Q':
                    Push(Persistent(Pop()));
                    break;
                case (byte)'R':
                    var call = Pop(2);
                    Push(Reduce(call[0], call[1]));
                    break;
                case (byte)'b': // BUILD: attributes of the dictionary, which mean nothing here
                    _ = Pop();
                    break;
                case (byte)'a':
                    var item = Pop();
                    (Peek() as List<object?> ?? throw Fault("it appends to what is no list")).Add(item);
                    break;
                case (byte)'e':
                    var items = PopToMark();
                    (Peek() as List<object?> ?? throw Fault("it appends to what is no list")).AddRange(items);
                    break;
                case (byte)'s':
                    SetItems(Pop(2));
                    break;
                case (byte)'u':
                    SetItems(PopToMark());
                    break;
                default:
                    throw Fault($"the instruction 0x{program[_at - 1]:x2} has no place in a checkpoint");
            }
        }
    }

    private Global Known(string name) => Storages.ContainsKey(name) || Functions.Contains(name)
        ? new Global(name)
        : throw Fault($"it refers to {name}. Only tensors are read, nothing is run");

    private Storage Persistent(object? id) => id is object?[] and ["storage", Global type, string key, _, long length] && Storages.TryGetValue(type.Name, out var dtype) && length >= 0
        ? new Storage(dtype, key, length)
        : throw Fault("a storage is not described as torch.save does");

    private object Reduce(object? function, object? arguments) => (function, arguments) switch
    {
        (Global { Name: "collections.OrderedDict" }, object?[] { Length: 0 }) => new Dictionary<object, object?>(),
        (Global { Name: "torch.Size" }, object?[] and [object?[] sizes]) => sizes,
        (Global { Name: "torch._utils._rebuild_parameter" }, object?[] and [StorageView tensor, ..]) => tensor,
        (Global { Name: "torch._utils._rebuild_tensor_v2" }, object?[] and [Storage storage, long offset, object?[] shape, object?[] strides, ..]) => View(storage, offset, shape, strides),
        _ => throw Fault("it calls what is no tensor"),
    };

    private StorageView View(Storage storage, long offset, object?[] shape, object?[] strides)
    {
        if (shape.Length != strides.Length || shape.Length > 8 || !shape.Concat(strides).All(number => number is >= 0L and <= int.MaxValue * 64L))
        {
            throw Fault("a tensor has a shape that is none");
        }

        var (sizes, steps) = (shape.Select(size => (long)size!).ToArray(), strides.Select(step => (long)step!).ToArray());
        var last = (Int128)offset;
        for (var i = 0; i < sizes.Length; i++)
        {
            last += (Int128)Math.Max(0, sizes[i] - 1) * steps[i];
        }

        return offset >= 0 && (sizes.Contains(0) || last < storage.Length)
            ? new StorageView(storage.Key, storage.Dtype, storage.Length, offset, sizes, steps)
            : throw Fault("a tensor reaches beyond its storage");
    }

    private void SetItems(object?[] pairs)
    {
        var target = Peek() as Dictionary<object, object?> ?? throw Fault("it sets items of what is no dictionary");
        if (pairs.Length % 2 != 0)
        {
            throw Fault("a key has no value");
        }

        for (var i = 0; i < pairs.Length; i += 2)
        {
            target[pairs[i] as string ?? throw Fault("a key is no text")] = pairs[i + 1];
        }
    }

    private void Memoize(uint index) => _memo[index <= int.MaxValue ? (int)index : throw Fault("an index is too large")] = Peek();

    private object? Recall(uint index) => index <= int.MaxValue && _memo.TryGetValue((int)index, out var value) ? value : throw Fault("it recalls what it never kept");

    private void Push(object? value)
    {
        if (_stack.Count > MaxDepth * 10)
        {
            throw Fault("its stack grows too large");
        }

        _stack.Add(value);
    }

    private object? Pop() => Pop(1)[0];

    private object?[] Pop(int count)
    {
        var floor = _marks.Count > 0 ? _marks[^1] : 0;
        if (_stack.Count - count < floor)
        {
            throw Fault("its stack runs empty");
        }

        var values = _stack.GetRange(_stack.Count - count, count).ToArray();
        _stack.RemoveRange(_stack.Count - count, count);
        return values;
    }

    private object?[] PopToMark()
    {
        if (_marks.Count == 0)
        {
            throw Fault("it has no mark");
        }

        var values = Pop(_stack.Count - _marks[^1]);
        _marks.RemoveAt(_marks.Count - 1);
        return values;
    }

    private object? Peek() => _stack.Count > 0 ? _stack[^1] : throw Fault("its stack runs empty");

    private static long Long(ReadOnlySpan<byte> bytes)
    {
        var value = 0L;
        for (var i = Math.Min(bytes.Length, 8) - 1; i >= 0; i--)
        {
            value = (value << 8) | bytes[i];
        }

        return bytes.Length is > 0 and < 8 && (bytes[^1] & 0x80) != 0 ? value - (1L << (8 * bytes.Length)) : value;
    }

    private string Line()
    {
        var end = Array.IndexOf(program, (byte)'\n', _at);
        if (end < 0 || end - _at > 1000)
        {
            throw Fault("a name does not end");
        }

        var text = Encoding.UTF8.GetString(program, _at, end - _at);
        _at = end + 1;
        return text;
    }

    private byte Byte() => Take(1)[0];

    private ReadOnlySpan<byte> Take(long bytes)
    {
        if (bytes > program.Length - _at)
        {
            throw Fault("it ends too early");
        }

        _at += (int)bytes;
        return program.AsSpan(_at - (int)bytes, (int)bytes);
    }

    private CheckpointException Fault(string what) => new($"{file} is not a checkpoint of tensors: {what}.");
}
