using System.Runtime.InteropServices;

namespace PeftServer.Worker.Devices;

/// <summary>How much memory a device has, for a process without libtorch: the host's own, or what NVIDIA's management library says of a GPU.</summary>
internal static partial class DeviceMemory
{
    /// <summary>Bytes that the host gives this process and its trainers: its memory, or less where a container has a limit.</summary>
    public static long Host => GC.GetGCMemoryInfo().TotalAvailableMemoryBytes;

    /// <summary>Bytes of GPU <paramref name="index"/> in all; null where the library is missing or does not know it.</summary>
    public static long? Gpu(int index)
    {
        try
        {
            return nvmlInit_v2() == 0 && nvmlDeviceGetHandleByIndex_v2((uint)index, out var device) == 0 && nvmlDeviceGetMemoryInfo(device, out var memory) == 0
                ? (long)memory.Total
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
