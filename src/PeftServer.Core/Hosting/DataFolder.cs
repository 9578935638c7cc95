using Microsoft.Extensions.Configuration;

namespace PeftServer.Core.Hosting;

/// <summary>Where an installation keeps what it makes.</summary>
public static class DataFolder
{
    /// <summary>The setting: <c>--data</c>, <c>Data</c>.</summary>
    public const string Key = "Data";

    /// <summary><c>Data</c>, else <c>$PEFTSERVER_DATA</c>, else <c>$XDG_DATA_HOME/peftserver</c>; absolute.</summary>
    public static string Of(IConfiguration configuration) => Of(configuration[Key]);

    /// <summary>As <see cref="Of(IConfiguration)"/>, for a command line's <paramref name="chosen"/> folder or null.</summary>
    public static string Of(string? chosen)
    {
        var folder = FirstGiven(chosen, Environment.GetEnvironmentVariable("PEFTSERVER_DATA")) ??
            Path.Combine(Environment.GetFolderPath(Environment.SpecialFolder.LocalApplicationData, Environment.SpecialFolderOption.DoNotVerify), "peftserver");
        return Path.GetFullPath(folder);
    }

    private static string? FirstGiven(params string?[] folders) => folders.FirstOrDefault(folder => !string.IsNullOrWhiteSpace(folder));
}
