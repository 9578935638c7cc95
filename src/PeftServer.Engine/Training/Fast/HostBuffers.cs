using PeftServer.Engine.Native;

namespace PeftServer.Engine.Training.Fast;

/// <summary>
/// The host's memory for what a step puts aside, kept from step to step. The GPU copies by itself, in the order of its other
/// work: nobody waits.
/// </summary>
internal sealed class HostBuffers : IDisposable
{
    private readonly List<Buffer> _free = [];
    private readonly Dictionary<Tensor, Buffer> _held = [];

    /// <summary>Copies <paramref name="x"/> to the host and disposes of it; gives what stands for it until <see cref="Load"/>.</summary>
    public Tensor Store(Tensor x)
    {
        var bytes = x.numel() * x.ElementSize;
        var found = _free.FindIndex(buffer => buffer.Bytes >= bytes);
        var buffer = found >= 0 ? _free[found] : new Buffer(bytes);
        if (found >= 0)
        {
            _free.RemoveAt(found);
        }

        var place = buffer.View(x);
        place.copy_(x, true);
        x.Dispose();
        _held[place] = buffer;
        return place;
    }

    /// <summary>What was stored, on <paramref name="device"/> again.</summary>
    public Tensor Load(Tensor place, Device device)
    {
        var x = empty(place.shape, dtype: place.dtype, device: device);
        x.copy_(place, true);
        _held.Remove(place, out var buffer);
        _free.Add(buffer!); // whoever writes to it next does so after this copy
        place.Dispose();
        return x;
    }

    public void Dispose()
    {
        foreach (var buffer in _free.Concat(_held.Values))
        {
            buffer.Dispose();
        }

        _free.Clear();
        _held.Clear();
    }

    private sealed class Buffer : IDisposable
    {
        private readonly Tensor _bytes;
        private readonly bool _registered;

        public Buffer(long bytes)
        {
            Bytes = bytes;
            _bytes = empty(bytes, dtype: ScalarType.Byte).DetachFromDisposeScope();
            _registered = TorchLoader.TorchCuda != 0 && CudaDriver.TryRegister(Aten.DataPointer(_bytes), bytes);
        }

        public long Bytes { get; }

        /// <summary>The first bytes, as a tensor like <paramref name="x"/>.</summary>
        public Tensor View(Tensor x)
        {
            using var scope = NewDisposeScope();
            return Aten.View(_bytes.narrow(0, 0, x.numel() * x.ElementSize), x.dtype).view(x.shape).DetachFromDisposeScope();
        }

        public void Dispose()
        {
            if (_registered)
            {
                CudaDriver.Unregister(Aten.DataPointer(_bytes));
            }

            _bytes.Dispose();
        }
    }
}
