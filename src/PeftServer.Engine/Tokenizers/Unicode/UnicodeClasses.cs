using System.Globalization;
using System.Text;

namespace PeftServer.Engine.Tokenizers.Unicode;

/// <summary>The classes of characters that tokenizers ask for.</summary>
internal static class UnicodeClasses
{
    private const uint Letters = 0b11111;
    private const uint Marks = 0b111 << (int)UnicodeCategory.NonSpacingMark;
    private const uint Punctuation = 0b1111111 << (int)UnicodeCategory.ConnectorPunctuation;

    /// <summary>The general category as one bit, in the order of <see cref="UnicodeCategory"/>.</summary>
    public static uint CategoryBit(int codePoint) => 1u << (int)CharUnicodeInfo.GetUnicodeCategory(codePoint);

    /// <summary>The general categories that <paramref name="name"/> (<c>L</c>, <c>Lu</c>, <c>Letter</c> …) stands for, as bits; 0 for none.</summary>
    public static uint CategoryBits(string name) => name.Replace("_", "", StringComparison.Ordinal).ToUpperInvariant() switch
    {
        "L" or "LETTER" => Letters,
        "LU" or "UPPERCASELETTER" => Bit(UnicodeCategory.UppercaseLetter),
        "LL" or "LOWERCASELETTER" => Bit(UnicodeCategory.LowercaseLetter),
        "LT" or "TITLECASELETTER" => Bit(UnicodeCategory.TitlecaseLetter),
        "LM" or "MODIFIERLETTER" => Bit(UnicodeCategory.ModifierLetter),
        "LO" or "OTHERLETTER" => Bit(UnicodeCategory.OtherLetter),
        "LC" or "CASEDLETTER" => 0b111,
        "M" or "MARK" => Marks,
        "MN" or "NONSPACINGMARK" => Bit(UnicodeCategory.NonSpacingMark),
        "MC" or "SPACINGMARK" => Bit(UnicodeCategory.SpacingCombiningMark),
        "ME" or "ENCLOSINGMARK" => Bit(UnicodeCategory.EnclosingMark),
        "N" or "NUMBER" => 0b111 << (int)UnicodeCategory.DecimalDigitNumber,
        "ND" or "DECIMALNUMBER" => Bit(UnicodeCategory.DecimalDigitNumber),
        "NL" or "LETTERNUMBER" => Bit(UnicodeCategory.LetterNumber),
        "NO" or "OTHERNUMBER" => Bit(UnicodeCategory.OtherNumber),
        "Z" or "SEPARATOR" => 0b111 << (int)UnicodeCategory.SpaceSeparator,
        "ZS" or "SPACESEPARATOR" => Bit(UnicodeCategory.SpaceSeparator),
        "ZL" or "LINESEPARATOR" => Bit(UnicodeCategory.LineSeparator),
        "ZP" or "PARAGRAPHSEPARATOR" => Bit(UnicodeCategory.ParagraphSeparator),
        "C" or "OTHER" => (0b1111 << (int)UnicodeCategory.Control) | Bit(UnicodeCategory.OtherNotAssigned),
        "CC" or "CONTROL" or "CNTRL" => Bit(UnicodeCategory.Control),
        "CF" or "FORMAT" => Bit(UnicodeCategory.Format),
        "CS" or "SURROGATE" => Bit(UnicodeCategory.Surrogate),
        "CO" or "PRIVATEUSE" => Bit(UnicodeCategory.PrivateUse),
        "CN" or "UNASSIGNED" => Bit(UnicodeCategory.OtherNotAssigned),
        "P" or "PUNCTUATION" or "PUNCT" => Punctuation,
        "PC" or "CONNECTORPUNCTUATION" => Bit(UnicodeCategory.ConnectorPunctuation),
        "PD" or "DASHPUNCTUATION" => Bit(UnicodeCategory.DashPunctuation),
        "PS" or "OPENPUNCTUATION" => Bit(UnicodeCategory.OpenPunctuation),
        "PE" or "CLOSEPUNCTUATION" => Bit(UnicodeCategory.ClosePunctuation),
        "PI" or "INITIALPUNCTUATION" => Bit(UnicodeCategory.InitialQuotePunctuation),
        "PF" or "FINALPUNCTUATION" => Bit(UnicodeCategory.FinalQuotePunctuation),
        "PO" or "OTHERPUNCTUATION" => Bit(UnicodeCategory.OtherPunctuation),
        "S" or "SYMBOL" => 0b1111 << (int)UnicodeCategory.MathSymbol,
        "SM" or "MATHSYMBOL" => Bit(UnicodeCategory.MathSymbol),
        "SC" or "CURRENCYSYMBOL" => Bit(UnicodeCategory.CurrencySymbol),
        "SK" or "MODIFIERSYMBOL" => Bit(UnicodeCategory.ModifierSymbol),
        "SO" or "OTHERSYMBOL" => Bit(UnicodeCategory.OtherSymbol),
        _ => 0,
    };

    /// <summary>Unicode's White_Space.</summary>
    public static bool IsSpace(int codePoint) => codePoint switch
    {
        <= 0x20 => codePoint is 0x20 or (>= 0x09 and <= 0x0D),
        < 0x1680 => codePoint is 0x85 or 0xA0,
        _ => codePoint is 0x1680 or (>= 0x2000 and <= 0x200A) or 0x2028 or 0x2029 or 0x202F or 0x205F or 0x3000,
    };

    /// <summary>Part of a word: letters and what else is alphabetic, marks, decimal digits, connectors.</summary>
    public static bool IsWord(int codePoint) =>
        (CategoryBit(codePoint) & (Letters | Marks | Bit(UnicodeCategory.DecimalDigitNumber) | Bit(UnicodeCategory.LetterNumber) | Bit(UnicodeCategory.ConnectorPunctuation))) != 0
        || IsAlphabeticSymbol(codePoint);

    /// <summary>Punctuation of ASCII (its symbols included) or of Unicode.</summary>
    public static bool IsPunctuation(int codePoint) => codePoint < 0x80
        ? codePoint is (>= '!' and <= '/') or (>= ':' and <= '@') or (>= '[' and <= '`') or (>= '{' and <= '~')
        : (CategoryBit(codePoint) & Punctuation) != 0;

    public static bool IsNumber(Rune rune) => Rune.IsNumber(rune);

    // Circled and squared letters: symbols by category, alphabetic by property.
    private static bool IsAlphabeticSymbol(int codePoint) =>
        codePoint is (>= 0x24B6 and <= 0x24E9) or (>= 0x1F130 and <= 0x1F149) or (>= 0x1F150 and <= 0x1F169) or (>= 0x1F170 and <= 0x1F189);

    private static uint Bit(UnicodeCategory category) => 1u << (int)category;
}
