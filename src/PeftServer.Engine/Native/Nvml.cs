using System.Runtime.InteropServices;

namespace PeftServer.Engine.Native;

/// <summary>
/// NVIDIA's management library: what it says of a GPU over all processes, for those too that have no libtorch. It comes with the driver.
/// </summary>
public static partial class Nvml
{
    /// <summary>Memory of GPU <paramref name="index"/>; null where the library is missing or does not know the GPU.</summary>
    public static GpuMemory? MemoryOf(int index)
    {
        try
        {
            return nvmlInit_v2() == 0 && nvmlDeviceGetHandleByIndex_v2((uint)index, out var device) == 0 && nvmlDeviceGetMemoryInfo(device, out var memory) == 0
                ? new GpuMemory((long)memory.Total, (long)memory.Used)
                : null;
        }
        catch (DllNotFoundException)
        {
            return null;
        }
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct Memory
    {
        public ulong Total;
        public ulong Free;
        public ulong Used;
    }

    [LibraryImport("libnvidia-ml.so.1")]
    private static partial int nvmlInit_v2();

    [LibraryImport("libnvidia-ml.so.1")]
    private static partial int nvmlDeviceGetHandleByIndex_v2(uint index, out nint device);

    [LibraryImport("libnvidia-ml.so.1")]
    private static partial int nvmlDeviceGetMemoryInfo(nint device, out Memory memory);
}

/// <summary>Memory of a GPU, in bytes.</summary>
/// <param name="Total">All of it.</param>
/// <param name="Used">What processes and the driver hold of it now.</param>
public readonly record struct GpuMemory(long Total, long Used);
