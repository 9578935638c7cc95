using System.Runtime.InteropServices;

namespace PeftServer.Engine.Native;

/// <summary>
/// What libtorch's caching allocator holds on a GPU: <c>torch.cuda.memory_stats</c>, which neither TorchSharp nor the C ABI reaches. The allocator is an object of
/// C++, so its method is called through its table of virtual functions. That table is <c>c10::DeviceAllocator</c>'s, which stands in libc10: the object's type
/// is asked whether it derives from it, and the table whether it is the one that is known here; otherwise nothing is called.
/// </summary>
internal static unsafe class CudaAllocator
{
    // Two destructors, allocate, is_simple_data_ptr, raw_deleter, copy_data, initialized, emptyCache, recordStream, getDeviceStats, two that reset, getMemoryInfo.
    private const int FirstWithoutBody = 5;
    private const int Initialized = 6;
    private const int GetDeviceStats = 9;
    private const int LastWithoutBody = 11;
    private const int Entries = 13;

    // DeviceStats: arrays of three statistics (all, small, large) of four numbers (current, peak, allocated, freed), allocated bytes the fifth of them.
    private const int StatArray = 3 * 4;
    private const int AllocatedBytes = 4 * StatArray;
    private const int ReservedBytes = 5 * StatArray;
    private const int OutOfMemories = (9 * StatArray) + 1; // behind the arrays and the number of retries
    private const int StatsRoom = 512; // numbers; the structure has fewer than 150

    private static long _outOfMemories;

    private static readonly Lazy<nint> Found = new(Find);

    /// <summary>The allocator's account of GPU <paramref name="device"/>; null where there is no CUDA, or an allocator that is not known here.</summary>
    public static CudaMemory? Read(int device)
    {
        var allocator = Found.Value;
        if (allocator == 0 || ((delegate* unmanaged<nint, byte>)Method(allocator, Initialized))(allocator) == 0)
        {
            return null; // before the first tensor there it would throw through this call
        }

        var stats = stackalloc long[StatsRoom];
        var read = (delegate* unmanaged<long*, nint, sbyte, long*>)Method(allocator, GetDeviceStats); // the result goes through a hidden first argument
        read(stats, allocator, (sbyte)device);
        var memory = new CudaMemory(stats[AllocatedBytes], stats[AllocatedBytes + 1], stats[ReservedBytes], stats[ReservedBytes + 1], stats[OutOfMemories]);
        return memory.IsPlausible ? memory : null;
    }

    /// <summary>Whether a GPU has run out of memory since the last call: the C ABI says that a call failed, and not of what.</summary>
    public static bool RanOut()
    {
        if (Found.Value == 0)
        {
            return false;
        }

        var count = Enumerable.Range(0, torch.cuda.device_count()).Sum(device => Read(device)?.OutOfMemories ?? 0);
        return Interlocked.Exchange(ref _outOfMemories, count) < count;
    }

    private static nint Find()
    {
        if (TorchLoader.C10Cuda == 0 || TorchLoader.C10 == 0
            || !NativeLibrary.TryGetExport(TorchLoader.C10Cuda, "_ZN3c104cuda20CUDACachingAllocator9allocatorE", out var place)
            || !NativeLibrary.TryGetExport(TorchLoader.C10, "_ZTIN3c1015DeviceAllocatorE", out var type)
            || !NativeLibrary.TryGetExport(TorchLoader.C10, "_ZTVN3c1015DeviceAllocatorE", out var table))
        {
            return 0;
        }

        var allocator = *(nint*)place;
        return allocator != 0 && IsKnown((nint*)table + 2) && Derives(TypeOf(allocator), type) ? allocator : 0;
    }

    /// <summary>Whether the table has no body just where libtorch 2.9 to 2.11 have none: another order would show.</summary>
    private static bool IsKnown(nint* table) =>
        NativeLibrary.TryGetExport(NativeLibrary.GetMainProgramHandle(), "__cxa_pure_virtual", out var pure)
        && Enumerable.Range(2, Entries - 2).All(i => table[i] == pure == (i is 2 or (>= FirstWithoutBody and <= LastWithoutBody)));

    /// <summary>Whether a type is <paramref name="ancestor"/> or has it as its first and only base, and so on up.</summary>
    private static bool Derives(nint type, nint ancestor)
    {
        if (!NativeLibrary.TryGetExport(NativeLibrary.GetMainProgramHandle(), "_ZTVN10__cxxabiv120__si_class_type_infoE", out var single))
        {
            return false;
        }

        while (type != ancestor)
        {
            // A type of one base: [its own table, name, base].
            if (((nint*)type)[0] != single + (2 * sizeof(nint)))
            {
                return false;
            }

            type = ((nint*)type)[2];
        }

        return true;
    }

    private static nint TypeOf(nint instance) => (*(nint**)instance)[-1];

    private static nint Method(nint instance, int index) => (*(nint**)instance)[index];
}

/// <summary>Bytes of tensors on a GPU now and at most, bytes that libtorch holds there for them now and at most, and how often it could not get any more.</summary>
internal readonly record struct CudaMemory(long Allocated, long AllocatedPeak, long Reserved, long ReservedPeak, long OutOfMemories)
{
    public bool IsPlausible => OutOfMemories >= 0 && Allocated >= 0 && Allocated <= AllocatedPeak && Allocated <= Reserved && Reserved <= ReservedPeak && ReservedPeak < 1L << 46;
}
