using System.Runtime.InteropServices;

namespace PeftServer.Engine.Weights;

/// <summary>Pages of a mapped file that have been read and are not needed again: while they count as the process's own, loading takes twice the room.</summary>
internal static partial class MappedPages
{
    private const int DontNeed = 4;

    /// <summary>Gives back the whole pages between two addresses of a mapping; whoever reads them again has them read from the file.</summary>
    public static void Forget(nint start, long bytes)
    {
        if (!OperatingSystem.IsLinux())
        {
            return;
        }

        long page = Environment.SystemPageSize;
        var (first, end) = ((start + page - 1) / page * page, (start + bytes) / page * page);
        if (end > first)
        {
            _ = madvise((nint)first, (nuint)(end - first), DontNeed); // a hint: nothing depends on it
        }
    }

    [LibraryImport("libc")]
    private static partial int madvise(nint address, nuint length, int advice);
}
