using System.Runtime.InteropServices;

namespace PeftServer.Engine.Native;

/// <summary>The few calls of the CUDA driver that launching own kernels needs.</summary>
internal static unsafe partial class CudaDriver
{
    private const int ComputeCapabilityMajor = 75;
    private const int ComputeCapabilityMinor = 76;

    /// <summary>Such as <c>sm_90</c>: what NVRTC is to compile for.</summary>
    public static string Architecture(int device)
    {
        var (major, minor) = ComputeCapability(device);
        return $"sm_{major}{minor}";
    }

    public static (int Major, int Minor) ComputeCapability(int device)
    {
        Check(cuDeviceGet(out var handle, device), nameof(cuDeviceGet));
        Check(cuDeviceGetAttribute(out var major, ComputeCapabilityMajor, handle), nameof(cuDeviceGetAttribute));
        Check(cuDeviceGetAttribute(out var minor, ComputeCapabilityMinor, handle), nameof(cuDeviceGetAttribute));
        return (major, minor);
    }

    /// <summary>What the vendor calls a device, such as <c>NVIDIA H200</c>.</summary>
    public static string Name(int device)
    {
        const int Room = 256;
        var name = stackalloc byte[Room];
        Check(cuDeviceGet(out var handle, device), nameof(cuDeviceGet));
        Check(cuDeviceGetName(name, Room, handle), nameof(cuDeviceGetName));
        return Marshal.PtrToStringUTF8((nint)name)!;
    }

    /// <summary>Bytes free and in all on the current device.</summary>
    public static (long Free, long Total) Memory()
    {
        Check(cuMemGetInfo(out var free, out var total), nameof(cuMemGetInfo));
        return ((long)free, (long)total);
    }

    /// <summary>Lets the GPU copy to and from pages of the host by itself; false where it cannot.</summary>
    public static bool TryRegister(nint address, long bytes) => cuMemHostRegister((void*)address, (nuint)bytes, 0) == 0;

    public static void Unregister(nint address) => Check(cuMemHostUnregister((void*)address), nameof(cuMemHostUnregister));

    public static nint LoadModule(byte[] image)
    {
        fixed (byte* bytes = image)
        {
            Check(cuModuleLoadData(out var module, bytes), nameof(cuModuleLoadData));
            return module;
        }
    }

    public static nint Function(nint module, string name)
    {
        Check(cuModuleGetFunction(out var function, module, name), $"{nameof(cuModuleGetFunction)}({name})");
        return function;
    }

    /// <summary>The stream that libtorch uses now on a device.</summary>
    public static nint CurrentStream(int device)
    {
        Check(aoti_torch_get_current_cuda_stream(device, out var stream), nameof(aoti_torch_get_current_cuda_stream));
        return stream;
    }

    public static void Launch(nint function, (int X, int Y) grid, int threads, nint stream, void** arguments) =>
        Check(cuLaunchKernel(function, (uint)grid.X, (uint)grid.Y, 1, (uint)threads, 1, 1, 0, stream, arguments, null), nameof(cuLaunchKernel));

    /// <summary>A stream that waits for no other by itself.</summary>
    public static nint CreateStream()
    {
        const uint NonBlocking = 1;
        Check(cuStreamCreate(out var stream, NonBlocking), nameof(cuStreamCreate));
        return stream;
    }

    /// <summary>A mark in the order of a stream's work.</summary>
    public static nint CreateEvent()
    {
        const uint WithoutTime = 2;
        Check(cuEventCreate(out var mark, WithoutTime), nameof(cuEventCreate));
        return mark;
    }

    public static void Record(nint mark, nint stream) => Check(cuEventRecord(mark, stream), nameof(cuEventRecord));

    /// <summary>What comes on a stream from here on waits for a mark as it was last set.</summary>
    public static void Wait(nint stream, nint mark) => Check(cuStreamWaitEvent(stream, mark, 0), nameof(cuStreamWaitEvent));

    private static void Check(int code, string call)
    {
        if (code != 0)
        {
            throw new TorchException($"The CUDA driver refused {call} with code {code}.");
        }
    }

    [LibraryImport("libcuda.so.1")]
    private static partial int cuDeviceGet(out int device, int ordinal);

    [LibraryImport("libcuda.so.1")]
    private static partial int cuDeviceGetAttribute(out int value, int attribute, int device);

    [LibraryImport("libcuda.so.1")]
    private static partial int cuDeviceGetName(byte* name, int room, int device);

    [LibraryImport("libcuda.so.1", EntryPoint = "cuMemGetInfo_v2")]
    private static partial int cuMemGetInfo(out nuint free, out nuint total);

    [LibraryImport("libcuda.so.1", EntryPoint = "cuMemHostRegister_v2")]
    private static partial int cuMemHostRegister(void* address, nuint bytes, uint flags);

    [LibraryImport("libcuda.so.1")]
    private static partial int cuMemHostUnregister(void* address);

    [LibraryImport("libcuda.so.1")]
    private static partial int cuModuleLoadData(out nint module, byte* image);

    [LibraryImport("libcuda.so.1", StringMarshalling = StringMarshalling.Utf8)]
    private static partial int cuModuleGetFunction(out nint function, nint module, string name);

    [LibraryImport("libcuda.so.1")]
    private static partial int cuLaunchKernel(
        nint function, uint gridX, uint gridY, uint gridZ, uint blockX, uint blockY, uint blockZ, uint sharedBytes, nint stream, void** arguments, void** extra);

    [LibraryImport("libcuda.so.1")]
    private static partial int cuStreamCreate(out nint stream, uint flags);

    [LibraryImport("libcuda.so.1")]
    private static partial int cuStreamWaitEvent(nint stream, nint mark, uint flags);

    [LibraryImport("libcuda.so.1")]
    private static partial int cuEventCreate(out nint mark, uint flags);

    [LibraryImport("libcuda.so.1")]
    private static partial int cuEventRecord(nint mark, nint stream);

    [LibraryImport("torch_cuda")]
    private static partial int aoti_torch_get_current_cuda_stream(int device, out nint stream);
}
