namespace PeftServer.Goldens.Tests;

/// <summary>
/// Where the reference cases are: the folder in <c>PEFTSERVER_GOLDENS</c> with every case it holds, or else
/// <c>tests/Goldens</c> of this repository with the cases that <c>MustPass.txt</c> lists.
/// </summary>
internal static class GoldenFolder
{
    public static string Root { get; } =
        Environment.GetEnvironmentVariable("PEFTSERVER_GOLDENS") is { Length: > 0 } given ? Path.GetFullPath(given) : Path.Combine(RepositoryRoot(), "tests", "Goldens");

    private static bool TakesAll => Environment.GetEnvironmentVariable("PEFTSERVER_GOLDENS") is { Length: > 0 };

    public static string PathOf(params string[] parts) => Path.Combine([Root, .. parts]);

    /// <summary>Names of the folders of a kind that hold <paramref name="file"/>; in CI only those that must pass.</summary>
    public static IEnumerable<string> Cases(string kind, string file)
    {
        var folder = Path.Combine(Root, kind);
        return !Directory.Exists(folder)
            ? []
            : Directory.GetDirectories(folder)
                .Where(path => File.Exists(Path.Combine(path, file)))
                .Select(path => Path.GetFileName(path))
                .Where(name => Takes(kind, name))
                .Order(StringComparer.Ordinal);
    }

    /// <summary>Whether this run takes the case.</summary>
    public static bool Takes(string kind, string name) => TakesAll || MustPass.Contains($"{kind}/{name}") || MustPass.Contains($"{kind}/*");

    private static readonly HashSet<string> MustPass =
        [.. File.ReadLines(Path.Combine(AppContext.BaseDirectory, "MustPass.txt")).Select(line => line.Trim()).Where(line => line is not ("" or ['#', ..]))];

    public static string RepositoryRoot()
    {
        var folder = new DirectoryInfo(AppContext.BaseDirectory);
        while (folder is not null && !File.Exists(Path.Combine(folder.FullName, "PeftServer.sln")))
        {
            folder = folder.Parent;
        }

        return folder?.FullName ?? throw new DirectoryNotFoundException("PeftServer.sln was not found above the tests.");
    }
}
