using System.Globalization;
using System.Text;
using PeftServer.Engine.Tokenizers.Patterns;
using PeftServer.Engine.Tokenizers.PreTokenizers;
using PeftServer.Engine.Tokenizers.Unicode;

namespace PeftServer.Engine.Tokenizers.Normalizers;

/// <summary>Writes each character anew: as other characters, as nothing, or as it was (null).</summary>
internal abstract class CharacterNormalizer : Normalizer
{
    public sealed override AlignedText Normalize(AlignedText text)
    {
        AlignedText.Editor? edit = null;
        for (int at = 0, length; at < text.Length; at += length)
        {
            Rune.DecodeFromUtf16(text.Span[at..], out var rune, out length);
            var changed = Map(rune);
            if (changed is null)
            {
                edit?.Keep(length);
                continue;
            }

            if (edit is null)
            {
                edit = text.Edit();
                edit.Keep(at);
            }

            edit.Replace(changed, length);
        }

        return edit?.Finish() ?? text;
    }

    protected abstract string? Map(Rune rune);
}

/// <summary>Full lower case, without context: İ becomes i and a dot.</summary>
internal sealed class LowercaseNormalizer : CharacterNormalizer
{
    protected override string? Map(Rune rune)
    {
        if (rune.IsAscii)
        {
            return rune.Value is >= 'A' and <= 'Z' ? ((char)(rune.Value | 0x20)).ToString() : null;
        }

        return rune.Value == 0x130 ? "i\u0307" : Rune.ToLowerInvariant(rune) is var lower && lower != rune ? lower.ToString() : null;
    }
}

/// <summary>Drops combining marks.</summary>
internal sealed class StripAccentsNormalizer : CharacterNormalizer
{
    protected override string? Map(Rune rune) => Rune.GetUnicodeCategory(rune) is
        UnicodeCategory.NonSpacingMark or UnicodeCategory.SpacingCombiningMark or UnicodeCategory.EnclosingMark ? "" : null;
}

/// <summary>The clean-up of SentencePiece's nmt rules: control characters go, odd white space becomes a space.</summary>
internal sealed class NmtNormalizer : CharacterNormalizer
{
    protected override string? Map(Rune rune) => rune.Value switch
    {
        (>= 0x01 and <= 0x08) or 0x0B or (>= 0x0E and <= 0x1F) or 0x7F or 0x8F or 0x9F => "",
        0x09 or 0x0A or 0x0C or 0x0D or 0x1680 or (>= 0x200B and <= 0x200F) or 0x2028 or 0x2029 or 0x2581 or 0xFEFF or 0xFFFD => " ",
        _ => null,
    };
}

/// <summary>Takes white space off the ends.</summary>
internal sealed class StripNormalizer(bool left, bool right) : Normalizer
{
    public override AlignedText Normalize(AlignedText text)
    {
        var (start, end) = (0, text.Length);
        while (left && start < end && UnicodeClasses.IsSpace(text.Span[start]))
        {
            start++;
        }

        while (right && end > start && UnicodeClasses.IsSpace(text.Span[end - 1]))
        {
            end--;
        }

        return text.Slice(start, end - start);
    }
}

/// <summary>Puts a text in front of what is not empty.</summary>
internal sealed class PrependNormalizer(string prefix) : Normalizer
{
    public override AlignedText Normalize(AlignedText text)
    {
        if (text.IsEmpty)
        {
            return text;
        }

        var edit = text.Edit();
        edit.InsertBefore(prefix);
        return edit.Finish();
    }
}

/// <summary>Replaces what matches a pattern.</summary>
internal sealed class ReplaceNormalizer(TextPattern pattern, string replacement) : Normalizer
{
    public override AlignedText Normalize(AlignedText text)
    {
        var matches = new List<(int Start, int End)>();
        pattern.FindAll(text.Span, matches);
        if (matches.Count == 0)
        {
            return text;
        }

        var edit = text.Edit();
        foreach (var (start, end) in matches)
        {
            edit.Keep(start - edit.Position);
            edit.Skip(end - start);
            edit.Insert(replacement); // belongs to the last character that it replaces
        }

        return edit.Finish();
    }
}

/// <summary>Spells bytes with their stand-ins, as the pre-tokenizer of that name does.</summary>
internal sealed class ByteLevelNormalizer : Normalizer
{
    public override AlignedText Normalize(AlignedText text) => ByteLevelPreTokenizer.Spell(text);
}
