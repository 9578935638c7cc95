using System.Diagnostics;
using System.Globalization;
using System.Text.RegularExpressions;

namespace PeftServer.Cli.Postgres;

/// <summary>One installed PostgreSQL: the folder of <c>initdb</c> and <c>postgres</c>, and its major version.</summary>
internal sealed partial record PostgresBinaries(string Folder, int MajorVersion)
{
    public string Initdb => Path.Combine(Folder, "initdb");

    public string Postgres => Path.Combine(Folder, "postgres");

    /// <summary>
    /// The installation at <paramref name="configured"/> (<c>Postgres:BinPath</c>), else the newest of the
    /// distribution's, else the one on PATH; of version <paramref name="majorVersion"/> where a cluster asks for it.
    /// </summary>
    public static async Task<PostgresBinaries> FindAsync(string? configured, int? majorVersion, CancellationToken cancellationToken)
    {
        var folders = string.IsNullOrWhiteSpace(configured) ? [.. FromPackages(), .. FromPath()] : new[] { configured };
        var found = new List<PostgresBinaries>();
        foreach (var folder in folders.Where(IsWhole).Distinct())
        {
            found.Add(new PostgresBinaries(folder, await ReadVersionAsync(folder, cancellationToken)));
        }
        var best = found
            .Where(binaries => majorVersion is null || binaries.MajorVersion == majorVersion)
            .MaxBy(binaries => binaries.MajorVersion);
        return best ?? throw new CommandException(Advice(configured, majorVersion, found), ExitCode.Environment);
    }

    private static bool IsWhole(string folder) =>
        File.Exists(Path.Combine(folder, "initdb")) && File.Exists(Path.Combine(folder, "postgres"));

    /// <summary>Debian and Ubuntu, then Red Hat's family.</summary>
    private static IEnumerable<string> FromPackages()
    {
        var debian = new DirectoryInfo("/usr/lib/postgresql");
        string[] versions = [.. debian.Exists ? debian.GetDirectories().Select(version => version.FullName) : [], .. Directory.GetDirectories("/usr", "pgsql-*")];
        return versions.Select(version => Path.Combine(version, "bin"));
    }

    private static IEnumerable<string> FromPath() =>
        (Environment.GetEnvironmentVariable("PATH") ?? "")
            .Split(':', StringSplitOptions.RemoveEmptyEntries)
            .Select(folder => new FileInfo(Path.Combine(folder, "initdb")))
            .Where(initdb => initdb.Exists)
            .Select(initdb => initdb.ResolveLinkTarget(returnFinalTarget: true)?.FullName ?? initdb.FullName)
            .Select(initdb => Path.GetDirectoryName(initdb)!);

    private static async Task<int> ReadVersionAsync(string folder, CancellationToken cancellationToken)
    {
        var info = new ProcessStartInfo(Path.Combine(folder, "postgres"), ["--version"]) { RedirectStandardOutput = true };
        using var process = Process.Start(info)!;
        var text = await process.StandardOutput.ReadToEndAsync(cancellationToken);
        await process.WaitForExitAsync(cancellationToken);
        var version = FirstNumber().Match(text);
        return version.Success
            ? int.Parse(version.Value, CultureInfo.InvariantCulture)
            : throw new CommandException($"{info.FileName} --version says \"{text.Trim()}\", which is no version.", ExitCode.Environment);
    }

    private static string Advice(string? configured, int? majorVersion, List<PostgresBinaries> found)
    {
        const string Remedy = "Install it (Debian, Ubuntu: bash deploy/quickstart.sh does so without starting a server of the "
            + "distribution's), or set Postgres:BinPath to the folder that holds initdb and postgres.";
        if (majorVersion is not null && found.Count > 0)
        {
            return $"The data directory holds a database of PostgreSQL {majorVersion}, and this machine has only "
                + $"{string.Join(", ", found.Select(binaries => binaries.MajorVersion))}. {Remedy}";
        }
        return string.IsNullOrWhiteSpace(configured)
            ? $"No PostgreSQL server was found under /usr/lib/postgresql or on PATH. {Remedy}"
            : $"Postgres:BinPath is {configured}, where there is no initdb and postgres. {Remedy}";
    }

    [GeneratedRegex(@"\d+")]
    private static partial Regex FirstNumber();
}
