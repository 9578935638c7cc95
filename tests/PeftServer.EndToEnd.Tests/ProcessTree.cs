using System.Diagnostics;
using System.Globalization;

namespace PeftServer.EndToEnd.Tests;

/// <summary>A process as /proc shows it.</summary>
public sealed record RunningProcess(int Id, int Parent, string CommandLine)
{
    /// <summary>Whether it is a host that `up` started, by its subcommand.</summary>
    public bool Runs(string subcommand) => CommandLine.Contains($"peftserver\0{subcommand}\0", StringComparison.Ordinal);

    /// <summary>Files that it has mapped.</summary>
    public string Maps() => File.ReadAllText($"/proc/{Id}/maps");

    /// <summary>Its share of the memory in use, in bytes.</summary>
    public long ProportionalSetSize() =>
        File.ReadLines($"/proc/{Id}/smaps_rollup")
            .Where(line => line.StartsWith("Pss:", StringComparison.Ordinal))
            .Sum(line => long.Parse(line.Split(' ', StringSplitOptions.RemoveEmptyEntries)[1], CultureInfo.InvariantCulture) * 1024);
}

/// <summary>Processes and their descendants.</summary>
public static class ProcessTree
{
    /// <summary>All descendants of a process.</summary>
    public static IReadOnlyList<RunningProcess> Below(int root)
    {
        var all = Directory.EnumerateDirectories("/proc").Select(Read).OfType<RunningProcess>().ToLookup(process => process.Parent);
        var found = new List<RunningProcess>();
        var parents = new Queue<int>([root]);
        while (parents.TryDequeue(out var parent))
        {
            foreach (var child in all[parent])
            {
                found.Add(child);
                parents.Enqueue(child.Id);
            }
        }
        return found;
    }

    /// <summary>Throws when one of <paramref name="processes"/> still runs after <paramref name="limit"/>.</summary>
    public static async Task UntilGoneAsync(IReadOnlyList<RunningProcess> processes, TimeSpan limit)
    {
        var started = Stopwatch.GetTimestamp();
        while (processes.Where(process => Read($"/proc/{process.Id}")?.CommandLine == process.CommandLine).ToArray() is { Length: > 0 } alive)
        {
            if (Stopwatch.GetElapsedTime(started) > limit)
            {
                throw new InvalidOperationException($"Still there after {limit.TotalSeconds} s: {string.Join("; ", alive.Select(process => process.CommandLine.Replace('\0', ' ')))}");
            }
            await Task.Delay(50);
        }
    }

    /// <summary>The process of a folder of /proc; null when it has ended.</summary>
    private static RunningProcess? Read(string folder)
    {
        if (!int.TryParse(Path.GetFileName(folder), NumberStyles.None, CultureInfo.InvariantCulture, out var id))
        {
            return null;
        }
        try
        {
            var stat = File.ReadAllText(Path.Combine(folder, "stat"));
            var fields = stat[(stat.LastIndexOf(')') + 2)..].Split(' '); // state, parent, …
            return fields[0] is "Z" or "X"
                ? null
                : new RunningProcess(id, int.Parse(fields[1], CultureInfo.InvariantCulture), File.ReadAllText(Path.Combine(folder, "cmdline")));
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }
}
