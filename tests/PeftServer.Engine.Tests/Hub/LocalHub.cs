using System.Collections.Concurrent;
using System.Globalization;
using System.Net;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json.Nodes;

namespace PeftServer.Engine.Tests.Hub;

/// <summary>A server on this machine that speaks the Hub's routes for one repository, and can break off, lie and refuse as asked.</summary>
internal sealed class LocalHub : IDisposable
{
    public const string Commit = "0123456789abcdef0123456789abcdef01234567";

    private readonly HttpListener _listener = new();
    private readonly string _repository;

    public LocalHub(string repository)
    {
        _repository = repository;
        for (var port = Random.Shared.Next(20_000, 50_000); ; port = Random.Shared.Next(20_000, 50_000))
        {
            try
            {
                Address = new Uri($"http://127.0.0.1:{port}");
                _listener.Prefixes.Add($"{Address}");
                _listener.Prefixes.Add($"http://localhost:{port}/");
                _listener.Start();
                break;
            }
            catch (HttpListenerException)
            {
                _listener.Prefixes.Clear(); // taken; another
            }
        }

        _ = Task.Run(ServeAsync);
    }

    public Uri Address { get; }

    /// <summary>Contents by path. Those larger than 1,000 bytes are large files, which redirect as the Hub's do.</summary>
    public ConcurrentDictionary<string, byte[]> Files { get; } = new();

    /// <summary>Requests so far: path and query, the Range header, and whether a token came.</summary>
    public ConcurrentQueue<(string Path, string? Range, string? Token)> Requests { get; } = new();

    /// <summary>Answers of large files that break off in their middle.</summary>
    public int BreakOff { get; set; }

    /// <summary>What the listing says of a file's digest, in place of the truth.</summary>
    public ConcurrentDictionary<string, string> Lies { get; } = new();

    public HttpStatusCode? Refusal { get; set; }

    public void Add(string path, string text) => Files[path] = Encoding.UTF8.GetBytes(text);

    public void Dispose() => _listener.Close();

    private async Task ServeAsync()
    {
        while (_listener.IsListening)
        {
            try
            {
                var context = await _listener.GetContextAsync();
                _ = Task.Run(() => Answer(context));
            }
            catch (Exception e) when (e is HttpListenerException or ObjectDisposedException)
            {
                return;
            }
        }
    }

    private void Answer(HttpListenerContext context)
    {
        var (request, response) = (context.Request, context.Response);
        var path = Uri.UnescapeDataString(request.Url!.AbsolutePath);
        Requests.Enqueue((path, request.Headers["Range"], request.Headers["Authorization"]));
        try
        {
            if (Refusal is { } refusal)
            {
                response.StatusCode = (int)refusal;
            }
            else if (path == $"/api/models/{_repository}/revision/main")
            {
                Send(response, Encoding.UTF8.GetBytes(Listing()), null);
            }
            else if (path.StartsWith($"/{_repository}/resolve/{Commit}/", StringComparison.Ordinal) && Files.TryGetValue(path[$"/{_repository}/resolve/{Commit}/".Length..], out var content))
            {
                if (content.Length > 1000)
                {
                    response.Redirect($"http://localhost:{Address.Port}/cdn/{Uri.EscapeDataString(path[$"/{_repository}/resolve/{Commit}/".Length..])}");
                }
                else
                {
                    Send(response, content, null);
                }
            }
            else if (path.StartsWith("/cdn/", StringComparison.Ordinal) && Files.TryGetValue(path["/cdn/".Length..], out var large))
            {
                Send(response, large, request.Headers["Range"]);
            }
            else
            {
                response.StatusCode = 404;
            }

            response.Close();
        }
        catch (Exception e) when (e is HttpListenerException or InvalidOperationException or IOException)
        {
            response.Abort();
        }
    }

    private void Send(HttpListenerResponse response, byte[] content, string? range)
    {
        var from = range is null ? 0 : int.Parse(range["bytes=".Length..^1], CultureInfo.InvariantCulture);
        if (from > 0)
        {
            response.StatusCode = 206;
            response.Headers["Content-Range"] = $"bytes {from}-{content.Length - 1}/{content.Length}";
        }

        response.ContentLength64 = content.Length - from;
        if (content.Length > 1000 && BreakOff > 0)
        {
            BreakOff--;
            response.OutputStream.Write(content, from, (content.Length - from) / 2);
            response.OutputStream.Flush();
            response.Abort();
            return;
        }

        response.OutputStream.Write(content, from, content.Length - from);
    }

    private string Listing() => new JsonObject
    {
        ["id"] = _repository,
        ["sha"] = Commit,
        ["siblings"] = new JsonArray([.. Files.Select(file =>
        {
            var sibling = new JsonObject { ["rfilename"] = file.Key, ["size"] = file.Value.Length, ["blobId"] = GitId(file.Value) };
            if (file.Value.Length > 1000)
            {
                sibling["lfs"] = new JsonObject { ["sha256"] = Lies.GetValueOrDefault(file.Key) ?? Convert.ToHexStringLower(SHA256.HashData(file.Value)), ["size"] = file.Value.Length };
            }

            return (JsonNode)sibling;
        })]),
    }.ToJsonString();

    private static string GitId(byte[] content)
    {
        using var git = IncrementalHash.CreateHash(HashAlgorithmName.SHA1);
        git.AppendData(Encoding.ASCII.GetBytes(string.Create(CultureInfo.InvariantCulture, $"blob {content.Length}\0")));
        git.AppendData(content);
        return Convert.ToHexStringLower(git.GetHashAndReset());
    }
}
