using System.Globalization;
using System.Security.Cryptography;
using System.Text;

namespace PeftServer.Engine.Hub;

/// <summary>One model's folder in the cache, laid out as huggingface_hub lays it out.</summary>
internal sealed class HubCache(string root, HubModelId model)
{
    private readonly string _folder = Path.Combine(root, model.CacheName);

    public string SnapshotOf(string commit) => Path.Combine(_folder, "snapshots", commit);

    /// <summary>The folder of the revision as it was last seen; null: it is not here.</summary>
    public string? Snapshot()
    {
        var reference = Path.Combine(_folder, "refs", model.Revision);
        var commit = File.Exists(reference) ? File.ReadAllText(reference).Trim() : model.Revision;
        return commit.Length > 0 && commit.All(char.IsAsciiHexDigit) && Directory.Exists(SnapshotOf(commit)) ? SnapshotOf(commit) : null;
    }

    /// <summary>Whether the file is here, under this commit or, with the same content, under another.</summary>
    public bool Has(string commit, HubFile file)
    {
        var path = Path.Combine(SnapshotOf(commit), file.Path);
        if (File.Exists(path) && (file.Size is null || new FileInfo(path).ResolveLinkTarget(returnFinalTarget: true) is not FileInfo target || target.Length == file.Size))
        {
            return true;
        }

        if (BlobOf(file) is { } blob && File.Exists(blob))
        {
            Link(commit, file, blob);
            return true;
        }

        return false;
    }

    /// <summary>Remembers which commit a revision means.</summary>
    public void Point(string revision, string commit)
    {
        var path = Path.Combine(_folder, "refs", revision);
        Directory.CreateDirectory(Path.GetDirectoryName(path)!);
        File.WriteAllText(path, commit);
    }

    /// <summary>Opens a file to be fetched, at what is here of it. Waits while another process fetches the same.</summary>
    public async Task<IncomingFile> OpenAsync(HubFile file, CancellationToken cancellationToken)
    {
        var blobs = Directory.CreateDirectory(Path.Combine(_folder, "blobs")).FullName;
        var name = file.Sha256 ?? file.GitId ?? Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(file.Path)));
        while (true)
        {
            try
            {
                var stream = new FileStream(Path.Combine(blobs, $"{Checked(name)}.incomplete"), FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
                return new IncomingFile(this, file, blobs, stream);
            }
            catch (IOException e) when (e is not (DirectoryNotFoundException or FileNotFoundException or PathTooLongException) && !cancellationToken.IsCancellationRequested)
            {
                await Task.Delay(500, cancellationToken);
            }
        }
    }

    /// <summary>Puts a link to a blob where the commit has the file.</summary>
    public void Link(string commit, HubFile file, string blob)
    {
        var path = Path.Combine(SnapshotOf(commit), file.Path);
        Directory.CreateDirectory(Path.GetDirectoryName(path)!);
        if (new FileInfo(path) is { LinkTarget: not null } or { Exists: true })
        {
            File.Delete(path);
        }

        File.CreateSymbolicLink(path, Path.GetRelativePath(Path.GetDirectoryName(path)!, blob));
    }

    private string? BlobOf(HubFile file) => (file.Sha256 ?? file.GitId) is { } name ? Path.Combine(_folder, "blobs", Checked(name)) : null;

    // The name comes from the Hub's answer and becomes a path.
    private static string Checked(string digest) =>
        digest.Length is >= 40 and <= 64 && digest.All(char.IsAsciiHexDigit) ? digest : throw new HubException($"The Hub names the digest '{digest}', which is none.");
}

/// <summary>A file on its way, and the check that it is what the Hub said.</summary>
internal sealed class IncomingFile(HubCache cache, HubFile file, string blobs, FileStream stream) : IAsyncDisposable
{
    private bool _isKept;

    public long Length => stream.Length;

    /// <summary>Whether nothing is missing, as far as its size says.</summary>
    public bool IsDone => file.Size is { } size && Length == size && size > 0;

    public void Restart() => stream.SetLength(0);

    public async Task CopyFromAsync(Stream source, Action<long> moved, CancellationToken cancellationToken)
    {
        stream.Seek(0, SeekOrigin.End);
        var buffer = new byte[1 << 20];
        int read;
        while ((read = await source.ReadAsync(buffer, cancellationToken)) > 0)
        {
            await stream.WriteAsync(buffer.AsMemory(0, read), cancellationToken);
            moved(read);
            if (file.Size is { } size && stream.Length > size)
            {
                throw new HubException($"{file.Path} is longer than the Hub said.");
            }
        }

        if (file.Size is { } wanted && stream.Length < wanted)
        {
            await stream.FlushAsync(cancellationToken);
            throw new IOException($"{stream.Length} of {wanted} bytes came");
        }
    }

    /// <summary>Checks the digest and puts the file in its place. A wrong one is thrown away.</summary>
    public async Task FinishAsync(string commit, CancellationToken cancellationToken)
    {
        await stream.FlushAsync(cancellationToken);
        var (sha256, git) = await DigestsAsync(cancellationToken);
        if ((file.Sha256 is { } large && !large.Equals(sha256, StringComparison.OrdinalIgnoreCase))
            || (file.Sha256 is null && file.GitId is { } small && !small.Equals(git, StringComparison.OrdinalIgnoreCase)))
        {
            stream.SetLength(0);
            throw new HubException($"{file.Path} is not what the Hub said: its digest differs. It was thrown away; run the same again.");
        }

        var blob = Path.Combine(blobs, file.Sha256 ?? file.GitId ?? sha256);
        File.Move(stream.Name, blob, overwrite: true);
        _isKept = true;
        cache.Link(commit, file, blob);
    }

    public async ValueTask DisposeAsync()
    {
        var (name, isEmpty) = (stream.Name, !_isKept && stream.Length == 0);
        await stream.DisposeAsync();
        if (isEmpty)
        {
            File.Delete(name);
        }
    }

    /// <summary>SHA-256 of the content, and git's name of it: SHA-1 behind a header.</summary>
    private async Task<(string Sha256, string Git)> DigestsAsync(CancellationToken cancellationToken)
    {
        using var sha256 = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        using var git = IncrementalHash.CreateHash(HashAlgorithmName.SHA1);
        git.AppendData(Encoding.ASCII.GetBytes(string.Create(CultureInfo.InvariantCulture, $"blob {stream.Length}\0")));
        stream.Seek(0, SeekOrigin.Begin);
        var buffer = new byte[1 << 20];
        int read;
        while ((read = await stream.ReadAsync(buffer, cancellationToken)) > 0)
        {
            sha256.AppendData(buffer, 0, read);
            git.AppendData(buffer, 0, read);
        }

        return (Convert.ToHexStringLower(sha256.GetHashAndReset()), Convert.ToHexStringLower(git.GetHashAndReset()));
    }
}
