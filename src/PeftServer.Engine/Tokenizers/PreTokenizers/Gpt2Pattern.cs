using System.Globalization;
using System.Text;

namespace PeftServer.Engine.Tokenizers.PreTokenizers;

/// <summary>
/// GPT-2's pattern by hand, since nearly every byte-level tokenizer runs it over all its text:
/// <c>'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+</c>.
/// </summary>
internal static class Gpt2Pattern
{
    /// <summary>Length of the match at the start of <paramref name="text"/>, which is not empty; every character is in some match.</summary>
    public static int MatchLength(ReadOnlySpan<char> text)
    {
        if (text[0] == '\'' && ContractionLength(text) is > 0 and var contraction)
        {
            return contraction;
        }

        var start = text[0] == ' ' && text.Length > 1 ? 1 : 0;
        var kind = KindAt(text, start, out _);
        if (kind is not CharKind.Space)
        {
            var end = start;
            while (end < text.Length && KindAt(text, end, out var length) == kind)
            {
                end += length;
            }

            return end;
        }

        var spaces = 0;
        var last = 0;
        while (spaces < text.Length && KindAt(text, spaces, out var length) is CharKind.Space)
        {
            spaces += length;
            last = length;
        }

        // The last space before a word goes with the word.
        return spaces < text.Length && spaces > last ? spaces - last : spaces;
    }

    private static int ContractionLength(ReadOnlySpan<char> text) => text.Length < 2 ? 0 : text[1] switch
    {
        's' or 't' or 'm' or 'd' => 2,
        'r' or 'v' when text.Length > 2 && text[2] == 'e' => 3,
        'l' when text.Length > 2 && text[2] == 'l' => 3,
        _ => 0,
    };

    private static CharKind KindAt(ReadOnlySpan<char> text, int at, out int length)
    {
        var c = text[at];
        if (c < 0x80)
        {
            length = 1;
            return char.IsAsciiLetter(c) ? CharKind.Letter
                : char.IsAsciiDigit(c) ? CharKind.Number
                : c is ' ' or (>= '\t' and <= '\r') ? CharKind.Space : CharKind.Other;
        }

        Rune.DecodeFromUtf16(text[at..], out var rune, out length);
        return Rune.GetUnicodeCategory(rune) switch
        {
            <= UnicodeCategory.OtherLetter => CharKind.Letter,
            UnicodeCategory.DecimalDigitNumber or UnicodeCategory.LetterNumber or UnicodeCategory.OtherNumber => CharKind.Number,
            UnicodeCategory.SpaceSeparator or UnicodeCategory.LineSeparator or UnicodeCategory.ParagraphSeparator => CharKind.Space,
            _ => c == 0x85 ? CharKind.Space : CharKind.Other,
        };
    }

    private enum CharKind
    {
        Letter,
        Number,
        Space,
        Other,
    }
}
