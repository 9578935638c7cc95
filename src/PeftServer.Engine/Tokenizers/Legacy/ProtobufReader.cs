using System.Buffers.Binary;
using System.Text;

namespace PeftServer.Engine.Tokenizers.Legacy;

/// <summary>Reads the fields of a protobuf message (https://protobuf.dev/programming-guides/encoding/), as far as SentencePiece uses them.</summary>
internal ref struct ProtobufReader(ReadOnlySpan<byte> message)
{
    private readonly ReadOnlySpan<byte> _message = message;
    private int _at;

    /// <summary>Number of the current field.</summary>
    public int Field { get; private set; }

    /// <summary>The current field's number, truth value or bits of a float; 0 for bytes.</summary>
    public ulong Number { get; private set; }

    /// <summary>The current field's bytes; empty for numbers.</summary>
    public ReadOnlySpan<byte> Bytes { get; private set; }

    public readonly float Float => BitConverter.Int32BitsToSingle((int)Number);

    public readonly string Text => Encoding.UTF8.GetString(Bytes);

    public bool Read()
    {
        if (_at >= _message.Length)
        {
            return false;
        }

        var tag = ReadVarint();
        Field = (int)(tag >> 3);
        Number = 0;
        Bytes = default;
        switch (tag & 7)
        {
            case 0:
                Number = ReadVarint();
                break;
            case 1:
                Number = BinaryPrimitives.ReadUInt64LittleEndian(Take(8));
                break;
            case 2:
                Bytes = Take(ReadVarint());
                break;
            case 5:
                Number = BinaryPrimitives.ReadUInt32LittleEndian(Take(4));
                break;
            default:
                throw Broken();
        }

        return true;
    }

    private ulong ReadVarint()
    {
        var value = 0UL;
        for (var shift = 0; shift < 64; shift += 7)
        {
            var b = Take(1)[0];
            value |= (ulong)(b & 0x7F) << shift;
            if (b < 0x80)
            {
                return value;
            }
        }

        throw Broken();
    }

    private ReadOnlySpan<byte> Take(ulong length)
    {
        if (length > (ulong)(_message.Length - _at))
        {
            throw Broken();
        }

        var bytes = _message.Slice(_at, (int)length);
        _at += (int)length;
        return bytes;
    }

    private static TokenizerException Broken() => new("The SentencePiece model is broken: a field ends beyond the end of the file.");
}
