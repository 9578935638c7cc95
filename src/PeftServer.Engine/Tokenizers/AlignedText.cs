using System.Text;

namespace PeftServer.Engine.Tokenizers;

/// <summary>Where a character of normalised text comes from: a range of UTF-16 units in the original text.</summary>
internal readonly record struct Alignment(int Start, int End);

/// <summary>
/// A stretch of text that remembers, character by character, which part of the original it came from. Slices share their
/// buffer. An edit (<see cref="Edit"/>) makes a new one.
/// </summary>
internal sealed class AlignedText
{
    private readonly string _buffer;
    private readonly Alignment[]? _alignments; // absent: the buffer is the original
    private readonly int _start;

    public AlignedText(string original)
        : this(original, null, 0, original.Length, 0)
    {
    }

    private AlignedText(string buffer, Alignment[]? alignments, int start, int length, int origin)
    {
        _buffer = buffer;
        _alignments = alignments;
        _start = start;
        Length = length;
        Origin = origin;
    }

    public int Length { get; }

    /// <summary>Where in the original this stretch begins; what is inserted in front of it is aligned here.</summary>
    public int Origin { get; }

    public bool IsEmpty => Length == 0;

    /// <summary>No character has moved: offsets here are offsets in the original, less <see cref="Origin"/>.</summary>
    public bool IsOriginal => _alignments is null;

    public ReadOnlySpan<char> Span => _buffer.AsSpan(_start, Length);

    public override string ToString() => Length == _buffer.Length ? _buffer : _buffer.Substring(_start, Length);

    public AlignedText Slice(int start, int length)
    {
        if (start == 0 && length == Length)
        {
            return this;
        }

        var origin = length == 0 || start >= Length ? Origin : this[start].Start;
        return new AlignedText(_buffer, _alignments, _start + start, length, origin);
    }

    /// <summary>Where the character at <paramref name="index"/> comes from; both halves of a surrogate pair say the whole pair.</summary>
    public Alignment this[int index]
    {
        get
        {
            var at = _start + index;
            if (_alignments is not null)
            {
                return _alignments[at];
            }

            if (char.IsHighSurrogate(_buffer[at]) && at + 1 < _buffer.Length && char.IsLowSurrogate(_buffer[at + 1]))
            {
                return new Alignment(at, at + 2);
            }

            return char.IsLowSurrogate(_buffer[at]) && at > 0 && char.IsHighSurrogate(_buffer[at - 1])
                ? new Alignment(at - 1, at + 1)
                : new Alignment(at, at + 1);
        }
    }

    /// <summary>The part of the original that the characters from <paramref name="start"/> to <paramref name="end"/> cover.</summary>
    public Alignment Cover(int start, int end) =>
        start >= end ? new Alignment(Origin + start, Origin + start) : new Alignment(this[start].Start, this[end - 1].End);

    /// <summary>Starts an edit that reads this text from front to back.</summary>
    public Editor Edit() => new(this);

    /// <summary>Builds a new text from an old one: each operation consumes or inserts characters at the reading position.</summary>
    internal sealed class Editor(AlignedText source)
    {
        private readonly StringBuilder _text = new(source.Length + 16);
        private readonly List<Alignment> _alignments = new(source.Length + 16);
        private int _at;

        public int Position => _at;

        public bool AtEnd => _at >= source.Length;

        /// <summary>UTF-16 units of the code point at the reading position; 0 at the end.</summary>
        public int NextLength()
        {
            Rune.DecodeFromUtf16(source.Span[_at..], out _, out var length);
            return length;
        }

        public void Keep(int characters)
        {
            for (var end = _at + characters; _at < end; _at++)
            {
                _text.Append(source.Span[_at]);
                _alignments.Add(source[_at]);
            }
        }

        public void Skip(int characters) => _at += characters;

        /// <summary>Puts <paramref name="replacement"/> where the next code point stands; all of it is aligned there.</summary>
        public void Replace(ReadOnlySpan<char> replacement, int consumed)
        {
            if (!replacement.IsEmpty)
            {
                Append(replacement, source[_at]);
            }

            _at += consumed;
        }

        /// <summary>Inserts text that belongs to the character before the reading position.</summary>
        public void Insert(ReadOnlySpan<char> text) =>
            Append(text, _at > 0 ? source[_at - 1] : new Alignment(source.Origin, source.Origin));

        /// <summary>Inserts text that belongs to the character at the reading position.</summary>
        public void InsertBefore(ReadOnlySpan<char> text) => Append(text, source[_at]);

        public void Append(ReadOnlySpan<char> text, Alignment alignment)
        {
            _text.Append(text);
            for (var i = 0; i < text.Length; i++)
            {
                _alignments.Add(alignment);
            }
        }

        public AlignedText Finish()
        {
            Keep(source.Length - _at);
            return new AlignedText(_text.ToString(), [.. _alignments], 0, _text.Length, source.Origin);
        }
    }
}
