using System.Runtime.InteropServices;

namespace PeftServer.Cli.Bench;

/// <summary>What NVML says a GPU holds, over all processes: the measure that peers' allocators cannot flatter.</summary>
internal static partial class NvidiaMemory
{
    /// <summary>Gibibytes in use on GPU <paramref name="index"/>; 0 where there is no NVML.</summary>
    public static double UsedGib(int index)
    {
        try
        {
            if (nvmlInit_v2() != 0 || nvmlDeviceGetHandleByIndex_v2((uint)index, out var device) != 0)
            {
                return 0;
            }

            return nvmlDeviceGetMemoryInfo(device, out var memory) == 0 ? memory.Used / (double)(1L << 30) : 0;
        }
        catch (DllNotFoundException)
        {
            return 0;
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
