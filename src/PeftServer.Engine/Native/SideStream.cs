using System.Runtime.InteropServices;

namespace PeftServer.Engine.Native;

/// <summary>
/// A second stream of a GPU for work that nothing waits for until later: what reads much memory goes on beside products that compute much. Only
/// for one thread, and work on it must not write to what other work still reads.
/// </summary>
internal sealed partial class SideStream
{
    private readonly int _device;
    private readonly nint _stream = CudaDriver.CreateStream();
    private readonly nint _begin = CudaDriver.CreateEvent();
    private readonly nint _end = CudaDriver.CreateEvent();
    private readonly List<Tensor> _held = [];

    public SideStream(int device) => _device = device;

    /// <summary>
    /// Sends what <paramref name="work"/> does to the GPU behind all that was sent so far, beside all that comes until <see cref="Join"/>. Until
    /// then the memory of <paramref name="reads"/> stays.
    /// </summary>
    public void Run(Action work, ReadOnlySpan<Tensor> reads)
    {
        foreach (var tensor in reads)
        {
            _held.Add(tensor.alias().DetachFromDisposeScope());
        }

        CudaDriver.Record(_begin, CudaDriver.CurrentStream(_device));
        CudaDriver.Wait(_stream, _begin);
        Check(aoti_torch_create_cuda_stream_guard(_stream, _device, out var guard), nameof(aoti_torch_create_cuda_stream_guard));
        try
        {
            work();
        }
        finally
        {
            _ = aoti_torch_delete_cuda_stream_guard(guard);
            CudaDriver.Record(_end, _stream);
        }
    }

    /// <summary>What is sent from here on comes behind all of the side stream's work.</summary>
    public void Join()
    {
        if (_held.Count == 0)
        {
            return;
        }

        CudaDriver.Wait(CudaDriver.CurrentStream(_device), _end);
        _held.ForEach(tensor => tensor.Dispose());
        _held.Clear();
    }

    private static void Check(int code, string call)
    {
        if (code != 0)
        {
            throw new TorchException($"libtorch refused {call} with code {code}.");
        }
    }

    [LibraryImport("torch_cuda")]
    private static partial int aoti_torch_create_cuda_stream_guard(nint stream, int device, out nint guard);

    [LibraryImport("torch_cuda")]
    private static partial int aoti_torch_delete_cuda_stream_guard(nint guard);
}
