using System.Text;
using PeftServer.Engine.Tokenizers.PreTokenizers;

namespace PeftServer.Engine.Tokenizers.PostProcessors;

/// <summary>Takes the white space at the ends of byte-level tokens out of their offsets.</summary>
internal sealed class ByteLevelPostProcessor(bool addPrefixSpace, bool trimOffsets) : PostProcessor
{
    public override int AddedTokens(bool pair) => 0;

    public override List<TokenEncoding> Process(List<TokenEncoding> encodings, bool addSpecialTokens)
    {
        foreach (var encoding in trimOffsets ? encodings : [])
        {
            TrimOffsets(encoding, addPrefixSpace);
        }

        return encodings;
    }

    internal static void TrimOffsets(TokenEncoding encoding, bool addPrefixSpace)
    {
        for (var i = 0; i < encoding.Count; i++)
        {
            var token = encoding.Tokens[i];
            var (start, end) = encoding.Offsets[i];
            var leading = token.EnumerateRunes().TakeWhile(IsSpace).Count();
            var trailing = token.EnumerateRunes().Reverse().TakeWhile(IsSpace).Count();
            if (leading == 1 && addPrefixSpace && (i == 0 || start == 0))
            {
                leading = 0; // the one that was put in front is not in the original
            }

            start = Math.Min(start + leading, end);
            if (trailing > 0 && end >= trailing)
            {
                end = Math.Max(end - trailing, start);
            }

            encoding.MutableOffsets[i] = (start, end);
        }
    }

    private static bool IsSpace(Rune rune) => rune.Value == ByteAlphabet.CharOf((byte)' ') || Rune.IsWhiteSpace(rune);
}
