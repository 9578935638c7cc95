namespace PeftServer.Engine.Data.Containers;

/// <summary>A piece of a file: the number of the line where it begins, from 1, and its bytes, which are valid until the next one is read.</summary>
internal readonly record struct JsonLine(long Number, ReadOnlyMemory<byte> Bytes, bool IsTooLong);

/// <summary>
/// Reads lines of bytes in bounded memory. Line feeds end lines, a carriage return before one is dropped, a UTF-8 mark at the
/// start of the file is skipped. Of a line beyond the limit only the beginning is kept.
/// </summary>
internal sealed class JsonLineReader(Stream stream, int maxLineBytes)
{
    private static readonly byte[] Utf8Mark = [0xEF, 0xBB, 0xBF];

    private readonly byte[] _block = new byte[64 * 1024];
    private byte[] _line = new byte[4096];
    private int _at;
    private int _filled;
    private long _number;

    public IEnumerable<JsonLine> ReadLines(CancellationToken cancellationToken)
    {
        Fill();
        _at = _block.AsSpan(0, _filled).StartsWith(Utf8Mark) ? Utf8Mark.Length : 0;
        while (_at < _filled || Fill())
        {
            cancellationToken.ThrowIfCancellationRequested();
            yield return ReadLine();
        }
    }

    private JsonLine ReadLine()
    {
        var length = 0;
        var tooLong = false;
        var ended = false;
        do
        {
            var rest = _block.AsSpan(_at, _filled - _at);
            var end = rest.IndexOf((byte)'\n');
            ended = end >= 0;
            var part = ended ? rest[..end] : rest;
            _at += part.Length + (ended ? 1 : 0);
            tooLong |= length + part.Length > maxLineBytes;
            if (!tooLong)
            {
                Append(part, length);
                length += part.Length;
            }
        }
        while (!ended && Fill());

        if (length > 0 && _line[length - 1] == '\r')
        {
            length--;
        }

        return new JsonLine(++_number, _line.AsMemory(0, length), tooLong);
    }

    private void Append(ReadOnlySpan<byte> part, int length)
    {
        if (length + part.Length > _line.Length)
        {
            Array.Resize(ref _line, Math.Max(length + part.Length, _line.Length * 2));
        }

        part.CopyTo(_line.AsSpan(length));
    }

    private bool Fill()
    {
        _at = 0;
        _filled = stream.ReadAtLeast(_block, _block.Length, throwOnEndOfStream: false);
        return _filled > 0;
    }
}
