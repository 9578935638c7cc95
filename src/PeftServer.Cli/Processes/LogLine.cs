using System.Text.Json;

namespace PeftServer.Cli.Processes;

/// <summary>A line of a child's log, as a person would like to read it.</summary>
internal static class LogLine
{
    /// <summary>Time, level, message and exception of a line of compact JSON; any other line as it is.</summary>
    public static string ForPeople(string line)
    {
        if (!line.StartsWith('{'))
        {
            return line;
        }
        try
        {
            using var json = JsonDocument.Parse(line);
            string?[] parts = [Text("@l") ?? "Information", Text("@m") ?? Text("@mt"), Text("@x")];
            return string.Join(' ', parts.Where(part => part is not null));

            string? Text(string name) =>
                json.RootElement.TryGetProperty(name, out var value) ? value.ToString() : null;
        }
        catch (JsonException)
        {
            return line;
        }
    }
}
