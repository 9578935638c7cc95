using System.Security.Cryptography;
using System.Text;

namespace PeftServer.Core.Storage;

/// <param name="Path">Relative to the adapter's folder, with '/'.</param>
/// <param name="Sha256">The blob.</param>
/// <param name="Bytes">Its length.</param>
public sealed record AdapterFile(string Path, string Sha256, long Bytes);

/// <summary>The files of an adapter, and the digest that names it.</summary>
public sealed record AdapterManifest
{
    public AdapterManifest(IEnumerable<AdapterFile> files)
    {
        Files = [.. files.OrderBy(file => file.Path, StringComparer.Ordinal)];
        Digest = DigestOf(Files);
    }

    /// <summary>Sha256, in hex, of a line "path NUL sha256 LF" a file, sorted by path.</summary>
    public string Digest { get; }

    public IReadOnlyList<AdapterFile> Files { get; }

    public long Bytes => Files.Sum(file => file.Bytes);

    private static string DigestOf(IEnumerable<AdapterFile> sorted)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        foreach (var file in sorted)
        {
            hash.AppendData(Encoding.UTF8.GetBytes($"{file.Path}\0{file.Sha256}\n"));
        }

        return Convert.ToHexStringLower(hash.GetHashAndReset());
    }
}
