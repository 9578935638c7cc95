namespace PeftServer.Core.Storage;

/// <summary>Where files live: each under the sha256 of its bytes, written once, never changed.</summary>
public interface IArtifactStore
{
    /// <summary>
    /// Stores what <paramref name="content"/> holds, without buffering it. The same bytes again are the same blob, and
    /// young again for the collection. Throws <see cref="ArtifactTooLargeException"/> beyond <paramref name="maxBytes"/>.
    /// </summary>
    Task<Blob> PutAsync(Stream content, long maxBytes, CancellationToken cancellationToken);

    /// <summary>Throws <see cref="ArtifactNotFoundException"/>.</summary>
    Task<Stream> OpenAsync(string sha256, CancellationToken cancellationToken);

    Task<bool> ExistsAsync(string sha256, CancellationToken cancellationToken);

    /// <summary>Removes the blob unless it is younger than <paramref name="minimumAge"/>; says whether it did.</summary>
    Task<bool> DeleteAsync(string sha256, TimeSpan minimumAge, CancellationToken cancellationToken);

    /// <summary>Every blob's sha256.</summary>
    IAsyncEnumerable<string> ListAsync(CancellationToken cancellationToken);
}

/// <param name="Sha256">64 lower-case hex digits.</param>
/// <param name="Bytes">Its length.</param>
public sealed record Blob(string Sha256, long Bytes);

public sealed class ArtifactTooLargeException(long maxBytes)
    : IOException($"The file is larger than {maxBytes} bytes.")
{
    public long MaxBytes { get; } = maxBytes;
}

public sealed class ArtifactNotFoundException(string sha256)
    : IOException($"The artifact store has no file {sha256}. Was its folder moved or emptied?")
{
    public string Sha256 { get; } = sha256;
}
