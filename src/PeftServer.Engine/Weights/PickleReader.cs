using System.Buffers.Binary;
using System.Text;

namespace PeftServer.Engine.Weights;

/// <summary>Where a pickled tensor lies: a view of a storage.</summary>
internal sealed record PickledTensor(PickledStorage Storage, long Offset, long[] Shape, long[] Strides);

/// <summary>A storage by its key in the file.</summary>
internal sealed record PickledStorage(string Kind, string Key);

/// <summary>
/// Reads the part of Python's pickle that <c>torch.save</c> uses for a dictionary of tensors. It is a stack of plain values; the four
/// callables it knows are answered by values of our own, and no other name passes.
/// </summary>
internal sealed class PickleReader(byte[] data)
{
    private readonly Stack<object?> _stack = new();
    private readonly Dictionary<long, object?> _memo = [];
    private int _at;

    /// <summary>A position on the stack that the list above it begins at.</summary>
    private static readonly object Mark = new();

    /// <summary>The tensors of the dictionary that the pickle holds; other values in it are an error.</summary>
    public IReadOnlyDictionary<string, PickledTensor> ReadTensors()
    {
        try
        {
            var root = Read() as Dictionary<object, object?> ?? throw Fault("it holds no dictionary");
            return root.ToDictionary(
                entry => entry.Key as string ?? throw Fault("a key is no text"),
                entry => entry.Value as PickledTensor ?? throw Fault($"'{entry.Key}' is no tensor"));
        }
        catch (Exception e) when (e is IndexOutOfRangeException or ArgumentException or InvalidOperationException or InvalidCastException or KeyNotFoundException or OverflowException or NullReferenceException)
        {
            throw new CheckpointException($"data.pkl cannot be read: {e.Message}", e);
        }
    }

    private object? Read()
    {
        while (true)
        {
            var op = data[_at++];
            switch ((char)op)
            {
                case '.':
                    return _stack.Pop();
                case '\x80': // protocol
                    _at++;
                    break;
                case '\x95': // frame
                    _at += 8;
                    break;
                case '(':
                    _stack.Push(Mark);
                    break;
                case '}':
                    _stack.Push(new Dictionary<object, object?>());
                    break;
                case ']':
                    _stack.Push(new List<object?>());
                    break;
                case ')':
                    _stack.Push(Array.Empty<object?>());
                    break;
                case 'N':
                    _stack.Push(null);
                    break;
                case '\x88' or '\x89':
                    _stack.Push(op == 0x88);
                    break;
                case 'K':
                    _stack.Push((long)data[_at++]);
                    break;
                case 'M':
                    _stack.Push((long)BinaryPrimitives.ReadUInt16LittleEndian(Take(2)));
                    break;
                case 'J':
                    _stack.Push((long)BinaryPrimitives.ReadInt32LittleEndian(Take(4)));
                    break;
                case '\x8a':
                    _stack.Push(Long(Take(data[_at++])));
                    break;
                case 'G':
                    _stack.Push(BinaryPrimitives.ReadDoubleBigEndian(Take(8)));
                    break;
                case 'X':
                    _stack.Push(Encoding.UTF8.GetString(Take(BinaryPrimitives.ReadInt32LittleEndian(Take(4)))));
                    break;
                case '\x8c':
                    _stack.Push(Encoding.UTF8.GetString(Take(data[_at++])));
                    break;
                case 'q':
                    _memo[data[_at++]] = _stack.Peek();
                    break;
                case 'r':
                    _memo[BinaryPrimitives.ReadUInt32LittleEndian(Take(4))] = _stack.Peek();
                    break;
                case '\x94':
                    _memo[_memo.Count] = _stack.Peek();
                    break;
                case 'h':
                    _stack.Push(_memo[data[_at++]]);
                    break;
                case 'j':
                    _stack.Push(_memo[BinaryPrimitives.ReadUInt32LittleEndian(Take(4))]);
                    break;
                case 't':
                    _stack.Push(Marked().ToArray());
                    break;
                case '\x85' or '\x86' or '\x87':
                    _stack.Push(Enumerable.Range(0, op - 0x84).Select(_ => _stack.Pop()).Reverse().ToArray());
                    break;
                case 'a':
                    var item = _stack.Pop();
                    ((List<object?>)_stack.Peek()!).Add(item);
                    break;
                case 'e':
                    var items = Marked();
                    ((List<object?>)_stack.Peek()!).AddRange(items);
                    break;
                case 's':
                    var value = _stack.Pop();
                    var key = _stack.Pop();
                    ((Dictionary<object, object?>)_stack.Peek()!)[key!] = value;
                    break;
                case 'u':
                    var pairs = Marked();
                    var map = (Dictionary<object, object?>)_stack.Peek()!;
                    for (var i = 0; i < pairs.Count; i += 2)
                    {
                        map[pairs[i]!] = pairs[i + 1];
                    }

                    break;
                case 'c':
                    var module = Line();
                    _stack.Push(Named(module, Line()));
                    break;
                case '\x93':
                    var name = (string)_stack.Pop()!;
                    _stack.Push(Named((string)_stack.Pop()!, name));
                    break;
                case 'Q':
                    _stack.Push(Storage((object?[])_stack.Pop()!));
                    break;
                case 'R':
                    var arguments = (object?[])_stack.Pop()!;
                    _stack.Push(Call((Callable)_stack.Pop()!, arguments));
                    break;
                case 'b': // state of an ordered dictionary: the versions of modules, which nothing here reads
                    _stack.Pop();
                    break;
                default:
                    throw Fault($"it uses the operation 0x{op:x2}");
            }
        }
    }

    private static Callable Named(string module, string name) => (module, name) switch
    {
        ("collections", "OrderedDict") => new Callable(CallableKind.Dictionary, name),
        ("torch._utils", "_rebuild_tensor_v2") => new Callable(CallableKind.Tensor, name),
        ("torch._utils", "_rebuild_parameter") => new Callable(CallableKind.Parameter, name),
        ("torch", _) when name.EndsWith("Storage", StringComparison.Ordinal) => new Callable(CallableKind.Storage, name),
        _ => throw Fault($"it names {module}.{name}, which is no tensor"),
    };

    private static object? Call(Callable callable, object?[] arguments) => callable.Kind switch
    {
        CallableKind.Dictionary when arguments.Length == 0 => new Dictionary<object, object?>(),
        CallableKind.Tensor => new PickledTensor((PickledStorage)arguments[0]!, (long)arguments[1]!, Longs(arguments[2]), Longs(arguments[3])),
        CallableKind.Parameter => (PickledTensor)arguments[0]!,
        _ => throw Fault($"it calls {callable.Name}"),
    };

    private static PickledStorage Storage(object?[] id) =>
        id is ["storage", Callable { Kind: CallableKind.Storage } kind, string key, ..] ? new PickledStorage(kind.Name, key) : throw Fault("a reference is no storage");

    private static long[] Longs(object? tuple)
    {
        var values = (object?[])tuple!;
        return [.. values.Select(value => (long)value!)];
    }

    private List<object?> Marked()
    {
        var items = new List<object?>();
        for (var item = _stack.Pop(); !ReferenceEquals(item, Mark); item = _stack.Pop())
        {
            items.Add(item);
        }

        items.Reverse();
        return items;
    }

    private ReadOnlySpan<byte> Take(int count)
    {
        _at += count;
        return data.AsSpan(_at - count, count);
    }

    private string Line()
    {
        var end = Array.IndexOf(data, (byte)'\n', _at);
        return Encoding.UTF8.GetString(Take(end - _at + 1)).TrimEnd('\n');
    }

    private static long Long(ReadOnlySpan<byte> little) => little.Length <= 8 ? (long)new System.Numerics.BigInteger(little) : throw Fault("a number is too large");

    private static CheckpointException Fault(string what) => new($"data.pkl is not a dictionary of tensors: {what}.");

    private enum CallableKind
    {
        Dictionary,
        Tensor,
        Parameter,
        Storage,
    }

    private sealed record Callable(CallableKind Kind, string Name);
}
