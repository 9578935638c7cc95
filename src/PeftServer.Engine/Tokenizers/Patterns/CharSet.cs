using System.Runtime.CompilerServices;
using System.Text;

namespace PeftServer.Engine.Tokenizers.Patterns;

/// <summary>
/// A set of code points, decided by a rule and remembered for the basic plane, a page of 1024 at a time as they are asked for.
/// </summary>
internal sealed class CharSet(Func<int, bool> contains)
{
    private const int PageBits = 10;
    private const int PageSize = 1 << PageBits;

    private readonly ulong[]?[] _pages = new ulong[]?[0x10000 >> PageBits];

    public bool Contains(int codePoint) => codePoint < 0x10000 ? ContainsBasic((char)codePoint) : contains(codePoint);

    /// <summary>Length in UTF-16 units of the character at <paramref name="at"/> when it is in the set; else 0.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public int MatchLength(ReadOnlySpan<char> text, int at)
    {
        if (at >= text.Length)
        {
            return 0;
        }

        var c = text[at];
        return char.IsHighSurrogate(c) ? MatchPair(text, at) : ContainsBasic(c) ? 1 : 0;
    }

    private int MatchPair(ReadOnlySpan<char> text, int at)
    {
        Rune.DecodeFromUtf16(text[at..], out var rune, out var length);
        return Contains(rune.Value) ? length : 0;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private bool ContainsBasic(char c)
    {
        var page = _pages[c >> PageBits] ?? FillPage(c >> PageBits);
        return (page[(c & (PageSize - 1)) >> 6] & (1UL << (c & 63))) != 0;
    }

    private ulong[] FillPage(int index)
    {
        var page = new ulong[PageSize / 64];
        for (var i = 0; i < PageSize; i++)
        {
            if (contains((index << PageBits) + i))
            {
                page[i >> 6] |= 1UL << (i & 63);
            }
        }

        _pages[index] = page; // another thread may do the same: the pages are equal
        return page;
    }
}
