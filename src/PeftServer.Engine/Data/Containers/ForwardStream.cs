namespace PeftServer.Engine.Data.Containers;

/// <summary>A stream that is read once, from front to back.</summary>
internal abstract class ForwardStream(Stream inner) : Stream
{
    protected Stream Inner { get; } = inner;

    public override bool CanRead => true;

    public override bool CanSeek => false;

    public override bool CanWrite => false;

    public override long Length => throw new NotSupportedException();

    public override long Position { get => throw new NotSupportedException(); set => throw new NotSupportedException(); }

    public override int Read(byte[] buffer, int offset, int count) => Read(buffer.AsSpan(offset, count));

    public abstract override int Read(Span<byte> buffer);

    public override void Flush()
    {
    }

    public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();

    public override void SetLength(long value) => throw new NotSupportedException();

    public override void Write(byte[] buffer, int offset, int count) => throw new NotSupportedException();
}

/// <summary>A stream whose first bytes were looked at already and are read again.</summary>
internal sealed class PrefixedStream : ForwardStream
{
    private readonly byte[] _prefix;
    private int _at;

    private PrefixedStream(byte[] prefix, Stream rest)
        : base(rest) => _prefix = prefix;

    public ReadOnlySpan<byte> Prefix => _prefix;

    /// <summary>Looks at up to <paramref name="count"/> bytes of <paramref name="stream"/>.</summary>
    public static PrefixedStream Peek(Stream stream, int count)
    {
        var prefix = new byte[count];
        var filled = stream.ReadAtLeast(prefix, count, throwOnEndOfStream: false);
        return new PrefixedStream(prefix[..filled], stream);
    }

    public override int Read(Span<byte> buffer)
    {
        if (_at == _prefix.Length)
        {
            return Inner.Read(buffer);
        }

        var count = Math.Min(buffer.Length, _prefix.Length - _at);
        _prefix.AsSpan(_at, count).CopyTo(buffer);
        _at += count;
        return count;
    }
}

/// <summary>Gives up when a stream gives more bytes than it may.</summary>
internal sealed class BoundedStream(Stream inner, long maxBytes) : ForwardStream(inner)
{
    private long _read;

    public override int Read(Span<byte> buffer)
    {
        var count = Inner.Read(buffer);
        _read += count;
        return _read <= maxBytes ? count : throw new InvalidDataException($"Unpacked, the file is larger than {maxBytes >> 30} GiB. Split it.");
    }
}
