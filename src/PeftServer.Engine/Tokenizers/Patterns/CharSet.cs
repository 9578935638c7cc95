using System.Text;

namespace PeftServer.Engine.Tokenizers.Patterns;

/// <summary>A set of code points, decided by a rule and remembered for the basic plane.</summary>
internal sealed class CharSet
{
    private readonly Func<int, bool> _contains;
    private readonly ulong[] _basic = new ulong[0x10000 / 64];

    public CharSet(Func<int, bool> contains)
    {
        _contains = contains;
        for (var c = 0; c < 0x10000; c++)
        {
            if (contains(c))
            {
                _basic[c >> 6] |= 1UL << (c & 63);
            }
        }
    }

    public bool Contains(int codePoint) =>
        codePoint < 0x10000 ? (_basic[codePoint >> 6] & (1UL << (codePoint & 63))) != 0 : _contains(codePoint);

    /// <summary>Length in UTF-16 units of the character at <paramref name="at"/> when it is in the set; else 0.</summary>
    public int MatchLength(ReadOnlySpan<char> text, int at)
    {
        if (at >= text.Length)
        {
            return 0;
        }

        var c = text[at];
        if (!char.IsHighSurrogate(c))
        {
            return (_basic[c >> 6] & (1UL << (c & 63))) != 0 ? 1 : 0;
        }

        Rune.DecodeFromUtf16(text[at..], out var rune, out var length);
        return Contains(rune.Value) ? length : 0;
    }
}
