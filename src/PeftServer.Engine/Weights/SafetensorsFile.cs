using System.Collections.Concurrent;
using System.IO.MemoryMappedFiles;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace PeftServer.Engine.Weights;

/// <summary>
/// A safetensors file, memory-mapped. Its tensors are views of the mapping: nothing is copied, and the mapping lives until
/// the file object and the last tensor are gone. They are read-only: writing to one ends the process.
/// </summary>
public sealed unsafe partial class SafetensorsFile : IDisposable
{
    private readonly Mapping? _mapping;

    private readonly string _path;

    private SafetensorsFile(string path, SafetensorsHeader header, Mapping? mapping) => (_path, Header, _mapping) = (path, header, mapping);

    public SafetensorsHeader Header { get; }

    /// <summary>Opens and checks <paramref name="path"/>. Throws <see cref="CheckpointException"/>.</summary>
    public static SafetensorsFile Open(string path, long maxHeaderBytes = SafetensorsHeader.MaxHeaderBytes)
    {
        var header = SafetensorsHeader.Read(path, maxHeaderBytes);
        return new SafetensorsFile(path, header, new FileInfo(path).Length > header.DataStart ? new Mapping(path) : null);
    }

    /// <summary>The tensor <paramref name="name"/>, on the CPU, as a view of the file.</summary>
    public Tensor Tensor(string name)
    {
        var entry = Header.Entries.TryGetValue(name, out var found)
            ? found
            : throw new CheckpointException($"There is no tensor '{name}'.");
        var shape = entry.Shape.ToArray();
        var dtype = ScalarTypeOf(entry.Dtype);
        if (entry.ByteCount == 0)
        {
            return empty(shape, dtype: dtype);
        }

        var address = _mapping!.Acquire(Header.DataStart + entry.Begin);
        fixed (long* sizes = shape)
        {
            var handle = THSTensor_new(address, &Mapping.Release, sizes, shape.Length, (sbyte)dtype, (sbyte)dtype, 0, 0, 0);
            return handle != 0
                ? torch.Tensor.UnsafeCreateTensor(handle)
                : throw new CheckpointException($"libtorch cannot view the tensor '{name}'.");
        }
    }

    /// <summary>Where the tensor <paramref name="name"/> lies, for one who reads the file instead.</summary>
    internal FileRegion Region(string name) => Header.Entries.TryGetValue(name, out var entry)
        ? new FileRegion(_path, Header.DataStart + entry.Begin, entry.ByteCount, ScalarTypeOf(entry.Dtype), entry.Shape)
        : throw new CheckpointException($"There is no tensor '{name}'.");

    /// <summary>Gives back the pages of a tensor that was looked at once.</summary>
    internal void Forget(string name)
    {
        if (Header.Entries.TryGetValue(name, out var entry) && entry.ByteCount > 0)
        {
            MappedPages.Forget(_mapping!.Address(Header.DataStart + entry.Begin), entry.ByteCount);
        }
    }

    public void Dispose() => _mapping?.ReleaseOne();

    /// <summary>The dtype by its name in the format. TorchSharp's enumeration ends before fp8; libtorch's numbers do not.</summary>
    internal static ScalarType ScalarTypeOf(string dtype) => dtype switch
    {
        "BOOL" => ScalarType.Bool,
        "U8" => ScalarType.Byte,
        "I8" => ScalarType.Int8,
        "I16" => ScalarType.Int16,
        "I32" => ScalarType.Int32,
        "I64" => ScalarType.Int64,
        "F16" => ScalarType.Float16,
        "BF16" => ScalarType.BFloat16,
        "F32" => ScalarType.Float32,
        "F64" => ScalarType.Float64,
        "C64" => ScalarType.ComplexFloat32,
        "F8_E5M2" => (ScalarType)23,
        "F8_E4M3" => (ScalarType)24,
        "F8_E8M0" => (ScalarType)44,
        "U16" => (ScalarType)27,
        "U32" => (ScalarType)28,
        "U64" => (ScalarType)29,
        _ => throw new CheckpointException($"Tensors of type {dtype} are not supported."),
    };

    internal static string NameOf(ScalarType dtype) =>
        SafetensorsHeader.Dtypes.Select(known => known.Name).FirstOrDefault(name => ScalarTypeOf(name) == dtype)
        ?? throw new CheckpointException($"Tensors of type {dtype} cannot be saved.");

    // from_blob, with the deleter that TorchSharp's own binding leaves out of reach.
    [LibraryImport("LibTorchSharp")]
    private static partial nint THSTensor_new(
        void* data, delegate* unmanaged[Cdecl]<void*, void> deleter, long* sizes, int dimensions, sbyte sourceType, sbyte dtype,
        int deviceType, int deviceIndex, byte requiresGrad);

    /// <summary>A mapped file that counts who looks at it.</summary>
    private sealed class Mapping
    {
        private static readonly ConcurrentDictionary<nint, (Mapping Mapping, int Count)> ByAddress = new();

        private readonly MemoryMappedFile _file;
        private readonly MemoryMappedViewAccessor _view;
        private readonly byte* _start;
        private int _references = 1;

        public Mapping(string path)
        {
            _file = MemoryMappedFile.CreateFromFile(path, FileMode.Open, null, 0, MemoryMappedFileAccess.Read);
            _view = _file.CreateViewAccessor(0, 0, MemoryMappedFileAccess.Read);
            _view.SafeMemoryMappedViewHandle.AcquirePointer(ref _start);
        }

        public nint Address(long offset) => (nint)(_start + offset);

        public void* Acquire(long offset)
        {
            Interlocked.Increment(ref _references);
            var address = _start + offset;
            ByAddress.AddOrUpdate((nint)address, (this, 1), (_, held) => (held.Mapping, held.Count + 1));
            return address;
        }

        [UnmanagedCallersOnly(CallConvs = [typeof(CallConvCdecl)])]
        public static void Release(void* address)
        {
            var held = ByAddress.AddOrUpdate((nint)address, default((Mapping, int)), (_, held) => (held.Mapping, held.Count - 1));
            if (held.Count == 0)
            {
                ByAddress.TryRemove((nint)address, out _);
            }

            held.Mapping.ReleaseOne();
        }

        public void ReleaseOne()
        {
            if (Interlocked.Decrement(ref _references) == 0)
            {
                _view.SafeMemoryMappedViewHandle.ReleasePointer();
                _view.Dispose();
                _file.Dispose();
            }
        }
    }
}
