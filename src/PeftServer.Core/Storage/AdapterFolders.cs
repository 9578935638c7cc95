using System.Security.Cryptography;
using Microsoft.Extensions.Options;

namespace PeftServer.Core.Storage;

/// <summary>Adapters between folders and the store.</summary>
public sealed class AdapterFolders(IArtifactStore store, IOptions<StorageOptions> options)
{
    /// <summary>Puts every file below <paramref name="folder"/> into the store. Throws when a file is a link: it could point anywhere.</summary>
    public async Task<AdapterManifest> PutAsync(string folder, CancellationToken cancellationToken)
    {
        var files = new List<AdapterFile>();
        foreach (var path in Directory.EnumerateFiles(folder, "*", SearchOption.AllDirectories))
        {
            if (new FileInfo(path).LinkTarget is not null)
            {
                throw new InvalidDataException($"{path} is a link. An adapter consists of plain files.");
            }

            await using var content = File.OpenRead(path);
            var blob = await store.PutAsync(content, options.Value.MaxAdapterBytes, cancellationToken);
            var relative = Path.GetRelativePath(folder, path).Replace(Path.DirectorySeparatorChar, '/');
            files.Add(new AdapterFile(relative, blob.Sha256, blob.Bytes));
        }

        return new AdapterManifest(files);
    }

    /// <summary>
    /// A local folder with the adapter's files, made once and kept by its digest. Throws
    /// <see cref="ArtifactNotFoundException"/> and, when a file is not what its name says, <see cref="InvalidDataException"/>.
    /// </summary>
    public async Task<string> MaterializeAsync(AdapterManifest manifest, CancellationToken cancellationToken)
    {
        var cache = Path.Combine(options.Value.Cache, "adapters");
        var folder = Path.Combine(cache, manifest.Digest);
        if (Directory.Exists(folder))
        {
            return folder;
        }

        var temporary = Path.Combine(cache, $".{manifest.Digest}.{PublicId.Random(8)}");
        try
        {
            foreach (var file in manifest.Files)
            {
                await CopyAsync(file, Inside(temporary, file.Path), cancellationToken);
            }

            Directory.Move(temporary, folder);
        }
        catch (IOException) when (Directory.Exists(folder))
        {
            // Another process was faster; the bytes are the same.
        }
        finally
        {
            if (Directory.Exists(temporary))
            {
                Directory.Delete(temporary, recursive: true);
            }
        }

        return folder;
    }

    private async Task CopyAsync(AdapterFile file, string destination, CancellationToken cancellationToken)
    {
        Directory.CreateDirectory(Path.GetDirectoryName(destination)!);
        await using var from = await store.OpenAsync(file.Sha256, cancellationToken);
        await using var to = new FileStream(destination, FileMode.CreateNew, FileAccess.ReadWrite);
        await from.CopyToAsync(to, cancellationToken);
        to.Position = 0;
        var found = Convert.ToHexStringLower(await SHA256.HashDataAsync(to, cancellationToken));
        if (found != file.Sha256)
        {
            throw new InvalidDataException($"'{file.Path}' of the adapter has the digest {found} instead of {file.Sha256}: the store is damaged.");
        }
    }

    private static string Inside(string folder, string relative)
    {
        var path = Path.GetFullPath(relative, folder);
        return path.StartsWith(folder + Path.DirectorySeparatorChar, StringComparison.Ordinal)
            ? path
            : throw new InvalidDataException($"'{relative}' leaves the adapter's folder.");
    }
}
