namespace PeftServer.Engine.Training;

/// <summary>Room on the disk of a run folder.</summary>
internal static class DiskSpace
{
    /// <summary>Bytes that are left free for others.</summary>
    public const long Reserve = 64L << 20;

    /// <summary>Free bytes where <paramref name="folder"/> lies, as this user may take them.</summary>
    public static long Free(string folder) => new DriveInfo(Path.GetFullPath(folder)).AvailableFreeSpace;

    /// <summary>What is missing for <paramref name="needed"/> bytes, in words; null when there is enough.</summary>
    public static string? Shortage(string folder, long needed, Func<string, long> free)
    {
        var left = free(folder);
        return left >= needed + Reserve
            ? null
            : FormattableString.Invariant($"{folder} has {left / 1048576.0:F0} MiB free, {(needed + Reserve) / 1048576.0:F0} MiB are needed");
    }
}
