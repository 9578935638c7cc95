namespace PeftServer.Engine.Tokenizers.Patterns;

internal sealed partial class RegexParser
{
    /// <summary>The rule of an escape that stands for a class of characters, at the letter behind the backslash; null for another.</summary>
    private Func<int, bool>? ReadClassEscape()
    {
        var c = _pattern[_at];
        var rule = c is 'p' or 'P' ? ReadProperty() : RegexClasses.Short(char.ToLowerInvariant(c));
        if (rule is null || c is 'p' or 'P')
        {
            return rule is not null && c == 'P' ? x => !rule(x) : rule;
        }

        _at++;
        return char.IsUpper(c) ? x => !rule(x) : rule;
    }

    private Func<int, bool> ReadProperty()
    {
        _at++;
        var close = Skip('{') ? _pattern.IndexOf('}', _at) : -1;
        if (close < 0)
        {
            throw Error("a property without its braces");
        }

        var name = _pattern[_at..close];
        _at = close + 1;
        var negated = name.StartsWith('^');
        name = negated ? name[1..] : name;
        var rule = RegexClasses.Property(name) ?? throw Error($"the property {name}");
        return negated ? c => !rule(c) : rule;
    }

    /// <summary>The character that an escape stands for, at the letter behind the backslash.</summary>
    private int ReadCharEscape()
    {
        var c = _pattern[_at++];
        switch (c)
        {
            case 'n':
                return '\n';
            case 'r':
                return '\r';
            case 't':
                return '\t';
            case 'v':
                return '\v';
            case 'f':
                return '\f';
            case 'a':
                return '\a';
            case 'e':
                return 0x1B;
            case '0':
                return ReadDigits(2, isHex: false);
            case 'u':
                return ReadDigits(4, isHex: true);
            case 'x':
                if (!Skip('{'))
                {
                    return ReadDigits(2, isHex: true);
                }

                var value = ReadDigits(8, isHex: true);
                return Skip('}') ? value : throw Error("\\x{ without its '}'");
            default:
                _at--;
                return NextCodePoint();
        }
    }

    private int ReadDigits(int count, bool isHex)
    {
        var start = _at;
        while (_at < _pattern.Length && _at - start < count && (isHex ? char.IsAsciiHexDigit(_pattern[_at]) : _pattern[_at] is >= '0' and <= '7'))
        {
            _at++;
        }

        var digits = _pattern[start.._at];
        var value = digits.Length == 0 ? 0 : isHex ? Convert.ToInt64(digits, 16) : Convert.ToInt64(digits, 8);
        return value <= 0x10FFFF ? (int)value : throw Error($"the code point {digits}");
    }
}
