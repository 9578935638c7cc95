using System.Globalization;
using System.Text;
using PeftServer.Engine.Tokenizers.Unicode;

namespace PeftServer.Engine.Tokenizers.Normalizers;

/// <summary>BERT's: cleans control characters, sets Chinese characters apart, strips accents, lowers case.</summary>
internal sealed class BertNormalizer : Normalizer
{
    private readonly List<Normalizer> _steps = [];

    public BertNormalizer(bool cleanText, bool handleChineseChars, bool? stripAccents, bool lowercase)
    {
        if (cleanText)
        {
            _steps.Add(new Clean());
        }

        if (handleChineseChars)
        {
            _steps.Add(new SpaceChinese());
        }

        if (stripAccents ?? lowercase)
        {
            _steps.Add(new UnicodeNormalizer(NormalizationForm.FormD));
            _steps.Add(new StripNonSpacing());
        }

        if (lowercase)
        {
            _steps.Add(new LowercaseNormalizer());
        }
    }

    public override AlignedText Normalize(AlignedText text) => _steps.Aggregate(text, (current, step) => step.Normalize(current));

    private sealed class Clean : CharacterNormalizer
    {
        protected override string? Map(Rune rune) => rune.Value switch
        {
            '\t' or '\n' or '\r' => " ",
            0 or 0xFFFD => "",
            _ when Rune.GetUnicodeCategory(rune) is UnicodeCategory.Control or UnicodeCategory.Format or UnicodeCategory.PrivateUse => "",
            ' ' => null,
            var c => UnicodeClasses.IsSpace(c) ? " " : null,
        };
    }

    private sealed class SpaceChinese : CharacterNormalizer
    {
        protected override string? Map(Rune rune) => rune.Value is
            (>= 0x4E00 and <= 0x9FFF) or (>= 0x3400 and <= 0x4DBF) or (>= 0x20000 and <= 0x2A6DF) or (>= 0x2A700 and <= 0x2B73F)
            or (>= 0x2B740 and <= 0x2B81F) or (>= 0x2B920 and <= 0x2CEAF) or (>= 0xF900 and <= 0xFAFF) or (>= 0x2F800 and <= 0x2FA1F)
            ? $" {rune} "
            : null;
    }

    private sealed class StripNonSpacing : CharacterNormalizer
    {
        protected override string? Map(Rune rune) => Rune.GetUnicodeCategory(rune) is UnicodeCategory.NonSpacingMark ? "" : null;
    }
}
