using PeftServer.Engine.Tokenizers.Unicode;

namespace PeftServer.Engine.Tokenizers.Patterns;

/// <summary>The classes of characters that patterns name.</summary>
internal static class RegexClasses
{
    /// <summary>The class of a letter behind a backslash: s, d, w, h.</summary>
    public static Func<int, bool>? Short(char letter) => letter switch
    {
        's' => UnicodeClasses.IsSpace,
        'd' => CategoryRule(UnicodeClasses.CategoryBits("Nd")),
        'w' => UnicodeClasses.IsWord,
        'h' => x => x < 0x80 && char.IsAsciiHexDigit((char)x),
        _ => null,
    };

    private static Func<int, bool> CategoryRule(uint bits) => c => (UnicodeClasses.CategoryBit(c) & bits) != 0;

    /// <summary>The class of a name in <c>\p{…}</c>: a general category, a POSIX class or a script.</summary>
    public static Func<int, bool>? Property(string name)
    {
        var plain = name.Replace("_", "", StringComparison.Ordinal).Replace(" ", "", StringComparison.Ordinal);
        plain = plain.StartsWith("script=", StringComparison.OrdinalIgnoreCase) ? plain[7..] : plain.StartsWith("sc=", StringComparison.OrdinalIgnoreCase) ? plain[3..] : plain;
        if (UnicodeClasses.CategoryBits(plain) is not 0 and var bits && !plain.Equals("PUNCT", StringComparison.OrdinalIgnoreCase))
        {
            return CategoryRule(bits);
        }

        if (Posix(plain.ToUpperInvariant()) is { } posix)
        {
            return posix;
        }

        var script = UnicodeScripts.Names.FirstOrDefault(s => s.Replace("_", "", StringComparison.Ordinal).Equals(plain, StringComparison.OrdinalIgnoreCase));
        return script is null ? null : c => UnicodeScripts.Of(c) == script;
    }

    /// <summary>The class of a name in <c>[:…:]</c>, in capitals.</summary>
    public static Func<int, bool>? Posix(string name) => name switch
    {
        "ALPHA" or "ALPHABETIC" => c => UnicodeClasses.IsWord(c)
            && (UnicodeClasses.CategoryBit(c) & (UnicodeClasses.CategoryBits("Nd") | UnicodeClasses.CategoryBits("Pc"))) == 0,
        "ALNUM" => c => UnicodeClasses.IsWord(c) && (UnicodeClasses.CategoryBit(c) & UnicodeClasses.CategoryBits("Pc")) == 0,
        "ASCII" => c => c < 0x80,
        "ANY" => _ => true,
        "BLANK" => c => c == '\t' || (UnicodeClasses.CategoryBit(c) & UnicodeClasses.CategoryBits("Zs")) != 0,
        "DIGIT" => CategoryRule(UnicodeClasses.CategoryBits("Nd")),
        "LOWER" or "LOWERCASE" => CategoryRule(UnicodeClasses.CategoryBits("Ll")),
        "UPPER" or "UPPERCASE" => CategoryRule(UnicodeClasses.CategoryBits("Lu")),
        "PUNCT" => c => UnicodeClasses.IsPunctuation(c),
        "SPACE" or "WHITESPACE" => UnicodeClasses.IsSpace,
        "XDIGIT" => c => c < 0x80 && char.IsAsciiHexDigit((char)c),
        "WORD" => UnicodeClasses.IsWord,
        "GRAPH" => c => !UnicodeClasses.IsSpace(c) && (UnicodeClasses.CategoryBit(c) & (UnicodeClasses.CategoryBits("Cc") | UnicodeClasses.CategoryBits("Cn") | UnicodeClasses.CategoryBits("Cs"))) == 0,
        "PRINT" => c => c == ' ' || (UnicodeClasses.CategoryBit(c) & (UnicodeClasses.CategoryBits("Cc") | UnicodeClasses.CategoryBits("Cn") | UnicodeClasses.CategoryBits("Cs"))) == 0,
        _ => null,
    };
}
