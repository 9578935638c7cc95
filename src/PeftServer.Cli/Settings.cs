using System.Text.Json;
using Microsoft.Extensions.Configuration;

namespace PeftServer.Cli;

/// <summary>Settings as the hosts see them: appsettings.json, then the environment, then <c>--set</c>.</summary>
internal static class Settings
{
    private static string DefaultsFile => Path.Combine(AppContext.BaseDirectory, "appsettings.json");

    public static IConfigurationRoot Read(IReadOnlyDictionary<string, string?> set) =>
        new ConfigurationBuilder()
            .AddJsonFile(DefaultsFile, optional: false, reloadOnChange: false)
            .AddEnvironmentVariables()
            .AddInMemoryCollection(set)
            .Build();

    /// <summary>As the arguments that a host's configuration reads.</summary>
    public static string[] ToArguments(IEnumerable<KeyValuePair<string, string?>> settings) =>
        [.. settings.Select(setting => $"--{setting.Key}={setting.Value}")];

    /// <summary>
    /// Splits <c>Section:Key=value</c>. Throws a <see cref="CommandException"/> for a key that appsettings.json does not
    /// have: a misspelt setting would do nothing and say nothing.
    /// </summary>
    public static IReadOnlyDictionary<string, string?> Parse(IEnumerable<string> assignments)
    {
        var known = Known();
        var set = new Dictionary<string, string?>(StringComparer.OrdinalIgnoreCase);
        foreach (var assignment in assignments)
        {
            var (key, value) = assignment.Split('=', 2) is [var name, var text]
                ? (name.Trim(), text)
                : throw new CommandException($"--set {assignment} lacks a value: write --set Section:Key=value.", ExitCode.Usage);
            if (!known.Any(setting => Covers(setting, key)))
            {
                throw new CommandException(
                    $"--set {key}: there is no such setting. Settings: {string.Join(", ", known)}.", ExitCode.Usage);
            }
            set[key] = value;
        }
        return set;
    }

    /// <summary>Lists and maps take an index or a name more than the file has: Worker:TrainerCommand:0, Serilog:MinimumLevel:Override:X.</summary>
    private static bool Covers(string setting, string key) =>
        key.Equals(setting, StringComparison.OrdinalIgnoreCase)
        || key.StartsWith(setting + ":", StringComparison.OrdinalIgnoreCase)
        || (setting.StartsWith("Serilog:", StringComparison.Ordinal) && key.StartsWith("Serilog:", StringComparison.OrdinalIgnoreCase));

    private static string[] Known()
    {
        using var defaults = JsonDocument.Parse(File.ReadAllBytes(DefaultsFile));
        return [.. Leaves(defaults.RootElement, prefix: "").Order(StringComparer.Ordinal)];
    }

    private static IEnumerable<string> Leaves(JsonElement section, string prefix) =>
        section.EnumerateObject().SelectMany(member => member.Value.ValueKind == JsonValueKind.Object
            ? Leaves(member.Value, prefix + member.Name + ":")
            : [prefix + member.Name]);
}
