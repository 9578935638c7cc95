namespace PeftServer.Core.Models;

/// <summary>An adapter: an immutable folder of files, named by the digest of them. Nobody owns it; models point at it.</summary>
public sealed class Adapter
{
    /// <summary><see cref="Storage.AdapterManifest.Digest"/>.</summary>
    public required string Digest { get; init; }

    /// <summary>PEFT's name of the method.</summary>
    public required string PeftType { get; init; }

    public required long Bytes { get; init; }

    public required IReadOnlyList<Storage.AdapterFile> Files { get; init; }

    public DateTimeOffset CreatedAt { get; private set; }
}
