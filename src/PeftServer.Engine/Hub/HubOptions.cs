namespace PeftServer.Engine.Hub;

/// <summary>Where the Hub is and where its files go, under the names that huggingface_hub reads from the environment.</summary>
public sealed record HubOptions
{
    /// <summary><c>HF_ENDPOINT</c>: the Hub or a mirror of it.</summary>
    public Uri Endpoint { get; init; } = new("https://huggingface.co");

    /// <summary><c>HF_TOKEN</c>, else the file that <c>hf auth login</c> writes: for gated and private models. Sent to the endpoint alone.</summary>
    public string? Token { get; init; }

    /// <summary><c>HF_HUB_CACHE</c>, else <c>hub</c> in <c>HF_HOME</c>: shared with huggingface_hub.</summary>
    public required string CacheFolder { get; init; }

    /// <summary><c>HF_HUB_OFFLINE</c>: what is in the cache, and nothing else.</summary>
    public bool Offline { get; init; }

    /// <summary>Files fetched at once.</summary>
    public int Parallelism { get; init; } = 4;

    /// <summary>Times that a broken transfer is taken up again where it broke.</summary>
    public int Attempts { get; init; } = 5;

    /// <summary>Before the second attempt; each further one waits twice as long.</summary>
    public TimeSpan RetryDelay { get; init; } = TimeSpan.FromSeconds(1);

    /// <summary>The options that the environment of this process says.</summary>
    public static HubOptions FromEnvironment()
    {
        static string? Variable(string name) => Environment.GetEnvironmentVariable(name) is { Length: > 0 } value ? value : null;
        var home = Variable("HF_HOME") ?? Path.Combine(
            Variable("XDG_CACHE_HOME") ?? Path.Combine(Environment.GetFolderPath(Environment.SpecialFolder.UserProfile), ".cache"), "huggingface");
        var tokenFile = Variable("HF_TOKEN_PATH") ?? Path.Combine(home, "token");
        var endpoint = Variable("HF_ENDPOINT")?.TrimEnd('/') ?? "https://huggingface.co";
        return new HubOptions
        {
            Endpoint = Uri.TryCreate(endpoint, UriKind.Absolute, out var uri) && uri.Scheme is "http" or "https"
                ? uri
                : throw new HubException($"HF_ENDPOINT is '{endpoint}', which is no address."),
            Token = Variable("HF_TOKEN") ?? (File.Exists(tokenFile) && File.ReadAllText(tokenFile).Trim() is { Length: > 0 } token ? token : null),
            CacheFolder = Variable("HF_HUB_CACHE") ?? Path.Combine(home, "hub"),
            Offline = Variable("HF_HUB_OFFLINE") is "1" or "true" or "TRUE" or "yes" or "on",
        };
    }
}

/// <summary>How far the files of a model are.</summary>
/// <param name="File">The file that has just moved.</param>
/// <param name="Bytes">Bytes of all files that are here.</param>
/// <param name="TotalBytes">Bytes of all files.</param>
public sealed record HubProgress(string File, long Bytes, long TotalBytes);
