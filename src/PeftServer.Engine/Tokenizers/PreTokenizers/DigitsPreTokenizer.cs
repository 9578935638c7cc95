using System.Text;

namespace PeftServer.Engine.Tokenizers.PreTokenizers;

/// <summary>Cuts numbers off from what surrounds them, digit by digit or as a whole.</summary>
internal sealed class DigitsPreTokenizer(bool individualDigits) : PreTokenizer
{
    public override void Split(AlignedText text, List<AlignedText> words)
    {
        var span = text.Span;
        var start = 0;
        for (int at = 0, length; at < span.Length; at += length)
        {
            Rune.DecodeFromUtf16(span[at..], out var rune, out length);
            if (at > start && (Rune.IsNumber(rune) ? individualDigits || !NumberBefore(span, at) : NumberBefore(span, at)))
            {
                words.Add(text.Slice(start, at - start));
                start = at;
            }
        }

        words.Add(text.Slice(start, span.Length - start));
    }

    private static bool NumberBefore(ReadOnlySpan<char> text, int at)
    {
        Rune.DecodeLastFromUtf16(text[..at], out var rune, out _);
        return Rune.IsNumber(rune);
    }
}
