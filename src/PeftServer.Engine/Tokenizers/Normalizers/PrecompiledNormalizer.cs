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
        var edit = text.Edit();
        var changed = false;
        while (!edit.AtEnd)
        {
            var grapheme = StringInfo.GetNextTextElementLength(text.Span[edit.Position..]);
            if (TryReplace(text, edit, grapheme, LongestGrapheme))
            {
                changed = true;
                continue;
            }

            for (var end = edit.Position + grapheme; edit.Position < end;)
            {
                var length = edit.NextLength();
                if (TryReplace(text, edit, length, int.MaxValue))
                {
                    changed = true;
                }
                else
                {
                    edit.Keep(length);
                }
            }
        }

        return changed ? edit.Finish() : text;
    }

    private bool TryReplace(AlignedText text, AlignedText.Editor edit, int length, int longest)
    {
        Span<byte> key = stackalloc byte[LongestGrapheme * 3];
        var part = text.Span.Slice(edit.Position, length);
        if (part.Length > LongestGrapheme || Encoding.UTF8.GetByteCount(part) > longest || Lookup(key[..Encoding.UTF8.GetBytes(part, key)]) is not { } replacement)
        {
            return false;
        }

        ReplaceCharacters(edit, length, replacement);
        return true;
    }

    /// <summary>Characters of the replacement stand for those they replace, one for one; what is over goes with the last.</summary>
    private static void ReplaceCharacters(AlignedText.Editor edit, int length, string replacement)
    {
        var end = edit.Position + length;
        foreach (var rune in replacement.EnumerateRunes())
        {
            if (edit.Position < end)
            {
                edit.Replace(rune.ToString(), edit.NextLength());
            }
            else
            {
                edit.Insert(rune.ToString());
            }
        }

        edit.Skip(end - edit.Position);
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
}
