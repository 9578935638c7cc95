using System.Text.Json;

namespace PeftServer.EndToEnd.Tests;

/// <summary>A data directory below a parent that only its owner may enter, as <c>mktemp -d</c> makes it; gone afterwards.</summary>
public sealed class Sandbox : IDisposable
{
    private readonly string _parent = Directory.CreateTempSubdirectory("peftserver-").FullName; // mode 0700

    public string Data => Path.Combine(_parent, "data");

    /// <summary>The folder of the database's cluster, once there is one.</summary>
    public string? ClusterFolder
    {
        get
        {
            var record = Path.Combine(Data, "postgres.json");
            return File.Exists(record)
                ? JsonDocument.Parse(File.ReadAllBytes(record)).RootElement.GetProperty("folder").GetString()
                : null;
        }
    }

    public string Write(string name, string text)
    {
        var path = Path.Combine(_parent, name);
        File.WriteAllText(path, text);
        return path;
    }

    public void Dispose()
    {
        if (ClusterFolder is { } cluster && Directory.Exists(cluster))
        {
            Directory.Delete(cluster, recursive: true);
        }
        Directory.Delete(_parent, recursive: true);
    }
}
