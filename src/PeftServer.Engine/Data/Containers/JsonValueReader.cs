using System.Buffers;
using System.Text.Json;

namespace PeftServer.Engine.Data.Containers;

/// <summary>
/// Reads the elements of one JSON array, or objects one after another, however they are laid out over lines, in bounded memory. Only brackets and
/// strings are looked at here; whether a value is JSON is for whoever parses it.
/// </summary>
internal sealed class JsonValueReader(Stream stream, int maxValueBytes)
{
    private readonly byte[] _block = new byte[64 * 1024];
    private readonly ArrayBufferWriter<byte> _value = new();
    private int _at;
    private int _filled;
    private long _line = 1;

    /// <summary>Whether a text that begins with an object has more than its first line of it.</summary>
    public static bool GoesOnOverLines(ReadOnlySpan<byte> text)
    {
        var end = text.IndexOf((byte)'\n');
        if (end < 0)
        {
            return false;
        }

        var reader = new Utf8JsonReader(text[..end], isFinalBlock: false, default);
        try
        {
            while (reader.Read())
            {
            }

            return reader.CurrentDepth > 0 || reader.TokenType is not JsonTokenType.EndObject;
        }
        catch (JsonException)
        {
            return false; // a line with a fault, which is told as one
        }
    }

    public IEnumerable<JsonLine> ReadValues(CancellationToken cancellationToken)
    {
        var isArray = false;
        while (Next() is var first and >= 0)
        {
            cancellationToken.ThrowIfCancellationRequested();
            if (first is ' ' or '\t' or '\r' or '\n' or ',' or 0xEF or 0xBB or 0xBF)
            {
                continue;
            }

            if (first == '[' && !isArray)
            {
                isArray = true;
            }
            else if (first == ']' && isArray)
            {
                isArray = false;
            }
            else
            {
                yield return ReadValue((byte)first);
            }
        }
    }

    private JsonLine ReadValue(byte first)
    {
        var (line, depth, inString, isEscaped, tooLong) = (_line, 0, false, false, false);
        var isBare = first is not ((byte)'{' or (byte)'[' or (byte)'"');
        _value.ResetWrittenCount();
        for (int next = first; next >= 0; next = Next())
        {
            if (isBare && next is (',' or ']' or '\n' or '\r' or ' ' or '\t'))
            {
                _at--; // a number or a word ends before what follows it
                _line -= next == '\n' ? 1 : 0;
                break;
            }

            tooLong |= _value.WrittenCount >= maxValueBytes;
            if (!tooLong)
            {
                _value.Write([(byte)next]);
            }

            if (inString)
            {
                (inString, isEscaped) = (isEscaped || next != '"', !isEscaped && next == '\\');
                if (!inString && depth == 0)
                {
                    break;
                }

                continue;
            }

            inString = next == '"';
            depth += next is '{' or '[' ? 1 : next is '}' or ']' ? -1 : 0;
            if (depth <= 0 && next is ('}' or ']'))
            {
                break;
            }
        }

        return new JsonLine(line, _value.WrittenMemory, tooLong);
    }

    private int Next()
    {
        if (_at == _filled)
        {
            (_at, _filled) = (0, stream.ReadAtLeast(_block, _block.Length, throwOnEndOfStream: false));
            if (_filled == 0)
            {
                return -1;
            }
        }

        _line += _block[_at] == '\n' ? 1 : 0;
        return _block[_at++];
    }
}
