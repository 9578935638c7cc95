using System.IO.Compression;
using System.Text;

namespace PeftServer.Engine.Data.Containers;

/// <summary>How the rows of a file are written down.</summary>
internal enum DatasetContainer
{
    JsonLines,

    /// <summary>A JSON array, or objects that go on over several lines.</summary>
    JsonValues,

    Csv,
    Parquet,
}

/// <summary>
/// A data set as it was uploaded, made readable: gzip and Zstandard are unpacked, UTF-16 becomes UTF-8, and what is inside is known by its
/// first bytes, never by a name.
/// </summary>
internal sealed record DatasetContent(DatasetContainer Container, Stream Utf8, string CsvDelimiter = ",") : IDisposable
{
    /// <summary>Bytes that a packed file may become. More is an attack, or a data set that should be several files.</summary>
    public const long MaxUnpackedBytes = 16L << 30;

    private const int PrefixBytes = 64 * 1024;

    public static DatasetContent Open(Stream stream)
    {
        var head = PrefixedStream.Peek(stream, PrefixBytes);
        if (head.Prefix.StartsWith("PAR1"u8))
        {
            return new DatasetContent(DatasetContainer.Parquet, stream.CanSeek ? Rewound(stream) : throw new InvalidDataException("A Parquet file must not be packed again: it is compressed inside."));
        }

        Stream? unpacked = head.Prefix.StartsWith((ReadOnlySpan<byte>)[0x1F, 0x8B]) ? new GZipStream(head, CompressionMode.Decompress)
            : head.Prefix.StartsWith((ReadOnlySpan<byte>)[0x28, 0xB5, 0x2F, 0xFD]) ? new ZstdSharp.DecompressionStream(head)
            : null;
        if (unpacked is not null)
        {
            head = PrefixedStream.Peek(new BoundedStream(unpacked, MaxUnpackedBytes), PrefixBytes);
            if (head.Prefix.StartsWith("PAR1"u8))
            {
                throw new InvalidDataException("A Parquet file must not be packed again: it is compressed inside.");
            }
        }

        if (Utf16Of(head.Prefix) is { } encoding)
        {
            head = PrefixedStream.Peek(Encoding.CreateTranscodingStream(head, encoding, Encoding.UTF8), PrefixBytes);
        }

        var text = head.Prefix.StartsWith((ReadOnlySpan<byte>)[0xEF, 0xBB, 0xBF]) ? head.Prefix[3..] : head.Prefix;
        text = text.TrimStart(" \t\r\n"u8);
        return text.StartsWith("["u8) || (text.StartsWith("{"u8) && JsonValueReader.GoesOnOverLines(text)) ? new DatasetContent(DatasetContainer.JsonValues, head)
            : CsvRows.DelimiterOf(text) is { } delimiter ? new DatasetContent(DatasetContainer.Csv, head, delimiter)
            : new DatasetContent(DatasetContainer.JsonLines, head);
    }

    public void Dispose() => Utf8.Dispose();

    private static Stream Rewound(Stream stream)
    {
        stream.Seek(0, SeekOrigin.Begin);
        return stream;
    }

    private static Encoding? Utf16Of(ReadOnlySpan<byte> start) =>
        start.StartsWith((ReadOnlySpan<byte>)[0xFF, 0xFE]) ? Encoding.Unicode
        : start.StartsWith((ReadOnlySpan<byte>)[0xFE, 0xFF]) ? Encoding.BigEndianUnicode
        : start.Length >= 2 && start[1] == 0 && start[0] is (byte)'{' or (byte)'[' ? Encoding.Unicode
        : start.Length >= 2 && start[0] == 0 && start[1] is (byte)'{' or (byte)'[' ? Encoding.BigEndianUnicode
        : null;
}
