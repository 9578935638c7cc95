using System.Buffers.Binary;
using System.Globalization;
using System.Text;

namespace PeftServer.Engine.Tokenizers.Normalizers;

/// <summary>
/// SentencePiece's compiled rules: a double-array trie from UTF-8 to replacements. Whole grapheme clusters of up to five
/// bytes are looked up first, then their characters.
/// </summary>
internal sealed class PrecompiledNormalizer : Normalizer
{
    private const int LongestGrapheme = 5;

    private readonly uint[] _trie;
    private readonly byte[] _replacements;

    public PrecompiledNormalizer(ReadOnlySpan<byte> charsmap)
    {
        var size = charsmap.Length < 4 ? 0 : BinaryPrimitives.ReadUInt32LittleEndian(charsmap);
        if (size == 0 || size % 4 != 0 || size > charsmap.Length - 4)
        {
            throw new TokenizerException("precompiled_charsmap is broken: its trie does not fit into it.");
        }

        _trie = new uint[size / 4];
        for (var i = 0; i < _trie.Length; i++)
        {
            _trie[i] = BinaryPrimitives.ReadUInt32LittleEndian(charsmap[(4 + (i * 4))..]);
        }

        _replacements = charsmap[(4 + (int)size)..].ToArray();
    }

    public override AlignedText Normalize(AlignedText text)
    {
        var edit = new Edit(text);
        var changed = false;
        for (int at = 0, grapheme; at < text.Length; at += grapheme)
        {
            grapheme = StringInfo.GetNextTextElementLength(text.Span[at..]);
            if (Lookup(text.Span.Slice(at, grapheme), LongestGrapheme) is { } whole)
            {
                edit.Replace(grapheme, whole);
                changed = true;
                continue;
            }

            for (int inner = at, length; inner < at + grapheme; inner += length)
            {
                Rune.DecodeFromUtf16(text.Span[inner..], out var rune, out length);
                var one = Lookup(text.Span.Slice(inner, length), int.MaxValue);
                edit.Replace(length, one ?? rune.ToString());
                changed |= one is not null;
            }
        }

        return changed ? edit.Finish() : text;
    }

    private string? Lookup(ReadOnlySpan<char> part, int longest)
    {
        Span<byte> key = stackalloc byte[LongestGrapheme * 3];
        return part.Length > LongestGrapheme || Encoding.UTF8.GetByteCount(part) > longest ? null : Lookup(key[..Encoding.UTF8.GetBytes(part, key)]);
    }

    /// <summary>The replacement of the shortest rule that <paramref name="key"/> begins with.</summary>
    private string? Lookup(ReadOnlySpan<byte> key)
    {
        var at = Offset(_trie[0]);
        foreach (var b in key)
        {
            at ^= b;
            if (b == 0 || at >= _trie.Length || (_trie[at] & 0x800000FF) != b)
            {
                return null;
            }

            var unit = _trie[at];
            at ^= Offset(unit);
            if ((unit & 0x100) != 0)
            {
                return at < _trie.Length ? Replacement((int)(_trie[at] & 0x7FFFFFFF)) : null;
            }
        }

        return null;
    }

    private string? Replacement(int start)
    {
        if (start >= _replacements.Length)
        {
            return null;
        }

        var rest = _replacements.AsSpan(start);
        var end = rest.IndexOf((byte)0);
        return Encoding.UTF8.GetString(end < 0 ? rest : rest[..end]);
    }

    private static uint Offset(uint unit) => (unit >> 10) << (int)((unit & 0x200) >> 6);

    /// <summary>
    /// Writes the new text with the library's alignment: characters stand for those they replace, one for one, and what is
    /// over goes with the last. What is dropped at the very start is not counted, so all that follows leans back by as much.
    /// </summary>
    private sealed class Edit(AlignedText text)
    {
        private readonly AlignedText.Editor _editor = text.Edit();
        private int _at; // where alignments are taken from
        private bool _isEmpty = true;

        public void Replace(int length, string replacement)
        {
            var end = Math.Min(_at + length, text.Length);
            foreach (var rune in replacement.EnumerateRunes())
            {
                if (_at < end)
                {
                    _editor.Append(rune.ToString(), text[_at]);
                    _at += NextLength();
                }
                else
                {
                    _editor.Append(rune.ToString(), _at > 0 ? text[_at - 1] : new Alignment(text.Origin, text.Origin));
                }

                _isEmpty = false;
            }

            _at = _isEmpty ? _at : Math.Max(_at, end);
        }

        public AlignedText Finish()
        {
            _editor.Skip(text.Length);
            return _editor.Finish();
        }

        private int NextLength() => char.IsHighSurrogate(text.Span[_at]) && _at + 1 < text.Length && char.IsLowSurrogate(text.Span[_at + 1]) ? 2 : 1;
    }
}
