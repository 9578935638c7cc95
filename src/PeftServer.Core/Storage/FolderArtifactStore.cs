using System.Buffers;
using System.Runtime.CompilerServices;
using System.Security.Cryptography;
using Microsoft.Extensions.Options;

namespace PeftServer.Core.Storage;

/// <summary>The store in a folder: <c>blobs/ab/abcdef…</c>. A file is there whole or not at all.</summary>
internal sealed class FolderArtifactStore : IArtifactStore
{
    private const int BufferSize = 1 << 17;
    private readonly string _blobs;
    private readonly string _incoming;
    private readonly TimeProvider _clock;

    public FolderArtifactStore(IOptions<StorageOptions> options, TimeProvider clock)
    {
        _clock = clock;
        _blobs = Path.Combine(options.Value.Root, "blobs");
        _incoming = Path.Combine(options.Value.Root, "incoming");
        Directory.CreateDirectory(_blobs);
        Directory.CreateDirectory(_incoming);
    }

    public async Task<Blob> PutAsync(Stream content, long maxBytes, CancellationToken cancellationToken)
    {
        var temporary = Path.Combine(_incoming, PublicId.Random(24));
        try
        {
            var blob = await WriteAsync(temporary, content, maxBytes, cancellationToken);
            Settle(temporary, PathOf(blob.Sha256));
            return blob;
        }
        finally
        {
            File.Delete(temporary);
        }
    }

    public Task<Stream> OpenAsync(string sha256, CancellationToken cancellationToken)
    {
        try
        {
            return Task.FromResult<Stream>(new FileStream(PathOf(sha256), new FileStreamOptions
            {
                Mode = FileMode.Open,
                Access = FileAccess.Read,
                Share = FileShare.Read | FileShare.Delete,
                Options = FileOptions.Asynchronous | FileOptions.SequentialScan,
                BufferSize = BufferSize,
            }));
        }
        catch (Exception e) when (e is FileNotFoundException or DirectoryNotFoundException)
        {
            throw new ArtifactNotFoundException(sha256);
        }
    }

    public Task<bool> ExistsAsync(string sha256, CancellationToken cancellationToken) =>
        Task.FromResult(File.Exists(PathOf(sha256)));

    public Task<bool> DeleteAsync(string sha256, TimeSpan minimumAge, CancellationToken cancellationToken)
    {
        var file = new FileInfo(PathOf(sha256));
        if (!file.Exists || file.LastWriteTimeUtc > _clock.GetUtcNow().UtcDateTime - minimumAge)
        {
            return Task.FromResult(false);
        }

        file.Delete();
        return Task.FromResult(true);
    }

    public async IAsyncEnumerable<string> ListAsync([EnumeratorCancellation] CancellationToken cancellationToken)
    {
        foreach (var path in Directory.EnumerateFiles(_blobs, "*", SearchOption.AllDirectories))
        {
            cancellationToken.ThrowIfCancellationRequested();
            if (IsSha256(Path.GetFileName(path)))
            {
                yield return Path.GetFileName(path);
            }
        }

        await Task.CompletedTask;
    }

    private static async Task<Blob> WriteAsync(string path, Stream content, long maxBytes, CancellationToken cancellationToken)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        await using var file = new FileStream(path, FileMode.CreateNew, FileAccess.Write, FileShare.None, 1, useAsync: true);
        var buffer = ArrayPool<byte>.Shared.Rent(BufferSize);
        try
        {
            for (var total = 0L; ;)
            {
                var read = await content.ReadAsync(buffer, cancellationToken);
                if (read == 0)
                {
                    file.Flush(flushToDisk: true); // on disk before the name is
                    return new Blob(Convert.ToHexStringLower(hash.GetHashAndReset()), total);
                }

                total += read;
                if (total > maxBytes)
                {
                    throw new ArtifactTooLargeException(maxBytes);
                }

                hash.AppendData(buffer, 0, read);
                await file.WriteAsync(buffer.AsMemory(0, read), cancellationToken);
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
    }

    private void Settle(string temporary, string destination)
    {
        if (File.Exists(destination))
        {
            try
            {
                // Young again: a collection that already holds a list of unused blobs must spare this one.
                File.SetLastWriteTimeUtc(destination, _clock.GetUtcNow().UtcDateTime);
                return;
            }
            catch (FileNotFoundException)
            {
                // Collected between the two lines; ours takes its place.
            }
        }

        Directory.CreateDirectory(Path.GetDirectoryName(destination)!);
        File.Move(temporary, destination, overwrite: true);
        FolderSync.Flush(Path.GetDirectoryName(destination)!);
    }

    private string PathOf(string sha256) => IsSha256(sha256)
        ? Path.Combine(_blobs, sha256[..2], sha256)
        : throw new ArgumentException($"'{sha256}' is no sha256 in lower-case hex.", nameof(sha256));

    private static bool IsSha256(string text) => text.Length == 64 && text.All(char.IsAsciiHexDigitLower);
}
