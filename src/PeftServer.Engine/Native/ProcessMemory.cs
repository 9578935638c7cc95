using System.Globalization;

namespace PeftServer.Engine.Native;

/// <summary>Memory of this process as Linux accounts for it.</summary>
public static class ProcessMemory
{
    /// <summary>Bytes resident now.</summary>
    public static long Resident => Read("VmRSS:", "/proc/self/status");

    /// <summary>Bytes resident at most so far.</summary>
    public static long Peak => Read("VmHWM:", "/proc/self/status");

    /// <summary>The peak of another process that runs; 0 where there is none.</summary>
    public static long PeakOf(int process)
    {
        try
        {
            return Read("VmHWM:", string.Create(CultureInfo.InvariantCulture, $"/proc/{process}/status"));
        }
        catch (IOException)
        {
            return 0;
        }
    }

    /// <summary>A line such as <c>VmHWM:   12345 kB</c>; a process that ends has none any more.</summary>
    private static long Read(string field, string path)
    {
        foreach (var line in File.ReadLines(path))
        {
            if (line.StartsWith(field, StringComparison.Ordinal))
            {
                return long.Parse(line.AsSpan(field.Length).Trim()[..^3], CultureInfo.InvariantCulture) << 10;
            }
        }

        return 0;
    }
}
