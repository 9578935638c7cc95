using System.Collections.Concurrent;
using Microsoft.Win32.SafeHandles;
using PeftServer.Engine.Native;

namespace PeftServer.Engine.Weights;

/// <summary>Where the values of a tensor lie in a file.</summary>
internal sealed record FileRegion(string Path, long Offset, long ByteCount, ScalarType Dtype, IReadOnlyList<long> Shape);

/// <summary>
/// Tensors of files on their way to a device, or to another type, through two buffers: a thread reads the next piece while the one before it is
/// copied. For a GPU the buffers are pinned, so that the copy is the device's own. Neither the files' pages nor a second whole of
/// anything is in memory at once.
/// </summary>
internal sealed class StagedReader : IDisposable
{
    private const int BufferBytes = 8 << 20;
    private const int Buffers = 2;

    private readonly Device _device;
    private readonly int _bufferBytes;
    private readonly List<Tensor> _buffers = [];
    private readonly BlockingCollection<int> _free = [];
    private readonly BlockingCollection<(int Buffer, int Bytes)> _full = [];
    private readonly CancellationTokenSource _end = new();
    private readonly Thread _thread;
    private readonly Queue<FileRegion> _next;
    private Exception? _fault;

    /// <summary>Begins to read <paramref name="regions"/> in their order; <see cref="CopyNext"/> must ask for them in the same.</summary>
    public StagedReader(IEnumerable<FileRegion> regions, Device device, int bufferBytes = BufferBytes)
    {
        (_device, _bufferBytes, _next) = (device, bufferBytes, new Queue<FileRegion>(regions));
        using (NewDisposeScope())
        {
            for (var i = 0; i < Buffers; i++)
            {
                var buffer = empty([bufferBytes], dtype: ScalarType.Byte);
                _buffers.Add((device.type is DeviceType.CUDA ? buffer.pin_memory() : buffer).DetachFromDisposeScope());
                _free.Add(i);
            }
        }

        var (places, all) = (_buffers.ConvertAll(Aten.DataPointer), _next.ToList());
        _thread = new Thread(() => ReadAll(all, places)) { IsBackground = true, Name = "reads weights" };
        _thread.Start();
    }

    /// <summary>Fills <paramref name="target"/>, which is contiguous, with the values of the next region, converted to its type.</summary>
    public void CopyNext(Tensor target)
    {
        var region = _next.Dequeue();
        using var scope = NewDisposeScope();
        var flat = target.view(-1);
        for (var done = 0L; done < flat.numel();)
        {
            var (buffer, bytes) = Take();
            var values = Aten.View(_buffers[buffer].narrow(0, 0, bytes), region.Dtype); // [part]
            var part = flat.narrow(0, done, values.numel());

            // Another type is made on the device: on the way there libtorch would make it on the CPU.
            part.copy_(region.Dtype == target.dtype ? values : values.to(_device));
            done += values.numel();
            _free.Add(buffer);
        }
    }

    public void Dispose()
    {
        _end.Cancel();
        _thread.Join();
        _buffers.ForEach(buffer => buffer.Dispose());
        _free.Dispose();
        _full.Dispose();
        _end.Dispose();
    }

    private (int Buffer, int Bytes) Take() => _full.TryTake(out var filled, Timeout.Infinite) ? filled
        : _fault is { } fault ? throw new CheckpointException($"The checkpoint cannot be read: {fault.Message}", fault)
        : throw new InvalidOperationException("More of a checkpoint was asked for than was to be read.");

    private void ReadAll(List<FileRegion> regions, List<nint> places)
    {
        var files = new Dictionary<string, SafeFileHandle>();
        try
        {
            foreach (var region in regions)
            {
                if (!files.TryGetValue(region.Path, out var file))
                {
                    files[region.Path] = file = File.OpenHandle(region.Path, options: FileOptions.SequentialScan);
                }

                for (var done = 0L; done < region.ByteCount;)
                {
                    var (buffer, bytes) = (_free.Take(_end.Token), (int)Math.Min(_bufferBytes, region.ByteCount - done));
                    Read(file, region, done, places[buffer], bytes);
                    _full.Add((buffer, bytes));
                    done += bytes;
                }
            }
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or CheckpointException)
        {
            _fault = e;
        }
        catch (OperationCanceledException)
        {
            // nobody wants the rest
        }
        finally
        {
            _full.CompleteAdding();
            foreach (var file in files.Values)
            {
                file.Dispose();
            }
        }
    }

    private static unsafe void Read(SafeFileHandle file, FileRegion region, long from, nint target, int bytes)
    {
        for (var read = 0; read < bytes;)
        {
            var count = RandomAccess.Read(file, new Span<byte>((byte*)target + read, bytes - read), region.Offset + from + read);
            read += count > 0 ? count : throw new CheckpointException($"{Path.GetFileName(region.Path)} ends inside a tensor.");
        }
    }
}
