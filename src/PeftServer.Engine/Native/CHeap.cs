using System.Runtime.InteropServices;

namespace PeftServer.Engine.Native;

/// <summary>
/// Keeps the heap that libtorch's CPU tensors lie in from growing step by step. Tensors of ever other sizes leave gaps in it, which glibc keeps: a run of 40 steps ended
/// with half as much again as its first had held, none of it in use between steps. Where more is held after a step than after others, what is free goes back to the system.
/// </summary>
internal sealed partial class CHeap
{
    private const double Growth = 1.15;
    private const long Least = 32 << 20;

    private readonly Func<long> _resident;
    private readonly Action _trim;
    private long? _usual; // after a step, at least

    public CHeap()
        : this(() => ProcessMemory.Resident, Trim)
    {
    }

    /// <param name="resident">Bytes that the process holds.</param>
    /// <param name="trim">Gives back what is free.</param>
    internal CHeap(Func<long> resident, Action trim) => (_resident, _trim) = (resident, trim);

    /// <summary>To be called between steps, when their tensors are gone.</summary>
    public void AfterStep()
    {
        var held = _resident();
        if (_usual is { } usual && held > (usual * Growth) + Least)
        {
            _trim();
            _usual = _resident(); // what is left is in use
            return;
        }

        _usual = Math.Min(_usual ?? held, held);
    }

    private static void Trim()
    {
        try
        {
            malloc_trim(0);
        }
        catch (EntryPointNotFoundException)
        {
            // A C library without it does not keep so much either.
        }
    }

    [LibraryImport("libc")]
    private static partial int malloc_trim(nuint keep);
}
