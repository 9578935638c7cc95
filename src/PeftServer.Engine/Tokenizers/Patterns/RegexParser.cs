using System.Globalization;
using System.Runtime.CompilerServices;
using System.Text;
using PeftServer.Engine.Tokenizers.Unicode;

namespace PeftServer.Engine.Tokenizers.Patterns;

/// <summary>
/// Reads the patterns of tokenizer.json, in the syntax of Oniguruma as the tokenizers library sets it (Ruby's,
/// https://github.com/kkos/oniguruma/blob/master/doc/RE). Groups do not capture; what would need captures is refused.
/// </summary>
internal sealed class RegexParser
{
    private const int MaxRepeat = 1000;

    private readonly string _pattern;
    private int _at;
    private bool _ignoreCase;
    private bool _dotAll;
    private bool _extended;

    private RegexParser(string pattern) => _pattern = pattern;

    public static RegexNode Parse(string pattern)
    {
        var parser = new RegexParser(pattern);
        var node = parser.ParseChoice();
        return parser._at == pattern.Length ? node : throw parser.Error("an unmatched ')'");
    }

    private RegexNode ParseChoice()
    {
        CheckStack();
        var (ignoreCase, dotAll, extended) = (_ignoreCase, _dotAll, _extended);
        var branches = new List<RegexNode> { ParseSequence() };
        while (Skip('|'))
        {
            branches.Add(ParseSequence());
        }

        (_ignoreCase, _dotAll, _extended) = (ignoreCase, dotAll, extended);
        return branches.Count == 1 ? branches[0] : new ChoiceNode(branches);
    }

    private RegexNode ParseSequence()
    {
        var parts = new List<RegexNode>();
        while (_at < _pattern.Length && _pattern[_at] is not ('|' or ')'))
        {
            if (_extended && SkipExtended())
            {
                continue;
            }

            if (ParseAtom() is { } atom)
            {
                parts.Add(ParseQuantifiers(atom));
            }
        }

        return parts.Count == 1 ? parts[0] : new SequenceNode(parts);
    }

    private bool SkipExtended()
    {
        if (char.IsWhiteSpace(_pattern[_at]))
        {
            _at++;
            return true;
        }

        if (_pattern[_at] != '#')
        {
            return false;
        }

        var end = _pattern.IndexOf('\n', _at);
        _at = end < 0 ? _pattern.Length : end + 1;
        return true;
    }

    private RegexNode? ParseAtom()
    {
        switch (_pattern[_at])
        {
            case '(':
                return ParseGroup();
            case '[':
                _at++;
                return new SetNode(new CharSet(new ClassParser(this).Parse()));
            case '.':
                _at++;
                var all = _dotAll;
                return new SetNode(new CharSet(c => all || c != '\n'));
            case '^':
                _at++;
                return new AnchorNode(Anchor.LineStart);
            case '$':
                _at++;
                return new AnchorNode(Anchor.LineEnd);
            case '\\':
                return ParseEscape();
            case '*' or '+' or '?':
                throw Error("a quantifier with nothing before it");
            default:
                return Literal(NextCodePoint());
        }
    }

    private RegexNode? ParseGroup()
    {
        _at++;
        if (!Skip('?'))
        {
            return Close(ParseChoice());
        }

        if (Skip(':'))
        {
            return Close(ParseChoice());
        }

        if (Skip('='))
        {
            return Close(new LookNode(ParseChoice(), IsBehind: false, IsNegative: false));
        }

        if (Skip('!'))
        {
            return Close(new LookNode(ParseChoice(), IsBehind: false, IsNegative: true));
        }

        if (Skip('>'))
        {
            return Close(new AtomicNode(ParseChoice()));
        }

        if (Skip('#'))
        {
            var end = _pattern.IndexOf(')', _at);
            _at = end < 0 ? throw Error("a comment without its ')'") : end + 1;
            return null;
        }

        if (Skip('<'))
        {
            return Skip('=') ? Close(new LookNode(ParseChoice(), IsBehind: true, IsNegative: false))
                : Skip('!') ? Close(new LookNode(ParseChoice(), IsBehind: true, IsNegative: true))
                : ParseNamed('>');
        }

        return Skip('\'') ? ParseNamed('\'') : ParseOptions();
    }

    private RegexNode ParseNamed(char end)
    {
        var close = _pattern.IndexOf(end, _at);
        _at = close < 0 ? throw Error("a group name without its end") : close + 1;
        return Close(ParseChoice());
    }

    private RegexNode? ParseOptions()
    {
        var on = true;
        for (; _at < _pattern.Length; _at++)
        {
            switch (_pattern[_at])
            {
                case '-':
                    on = false;
                    break;
                case 'i':
                    _ignoreCase = on;
                    break;
                case 'm' or 's': // 'm' is Ruby's, 's' Perl's name for it
                    _dotAll = on;
                    break;
                case 'x':
                    _extended = on;
                    break;
                case ':':
                    _at++;
                    return Close(ParseChoice());
                case ')':
                    _at++;
                    return ParseSequenceWithRest();
                default:
                    throw Error($"the group option '{_pattern[_at]}'");
            }
        }

        throw Error("a group without its ')'");
    }

    // (?i) holds to the end of the group that it stands in, over its branches.
    private RegexNode ParseSequenceWithRest()
    {
        var branches = new List<RegexNode> { ParseSequence() };
        while (Skip('|'))
        {
            branches.Add(ParseSequence());
        }

        return branches.Count == 1 ? branches[0] : new ChoiceNode(branches);
    }

    private RegexNode Close(RegexNode node) => Skip(')') ? node : throw Error("a group without its ')'");

    private RegexNode ParseQuantifiers(RegexNode atom)
    {
        while (_at < _pattern.Length)
        {
            var (minimum, maximum) = (0, -1);
            var c = _pattern[_at];
            if (c == '{' && ReadBounds(out minimum, out maximum))
            {
                // In Ruby's syntax x{2}+ repeats the repetition; it is not possessive.
                atom = new RepeatNode(atom, minimum, maximum, Skip('?') ? RepeatKind.Lazy : RepeatKind.Greedy);
                continue;
            }

            if (c is not ('*' or '+' or '?'))
            {
                return atom;
            }

            _at++;
            (minimum, maximum) = c switch { '*' => (0, -1), '+' => (1, -1), _ => (0, 1) };
            atom = new RepeatNode(atom, minimum, maximum, Skip('?') ? RepeatKind.Lazy : Skip('+') ? RepeatKind.Possessive : RepeatKind.Greedy);
        }

        return atom;
    }

    private bool ReadBounds(out int minimum, out int maximum)
    {
        (minimum, maximum) = (0, 0);
        var close = _pattern.IndexOf('}', _at);
        var bounds = close < 0 ? [] : _pattern[(_at + 1)..close].Split(',');
        var hasFirst = bounds.Length > 0 && int.TryParse(bounds[0], NumberStyles.None, CultureInfo.InvariantCulture, out minimum);
        if (bounds.Length is 0 or > 2 || (!hasFirst && (bounds.Length != 2 || bounds[0].Length > 0 || bounds[1].Length == 0)))
        {
            return false; // a brace that is no bound is a brace
        }

        maximum = minimum;
        if (bounds.Length == 2)
        {
            maximum = -1;
            if (bounds[1].Length > 0 && !int.TryParse(bounds[1], NumberStyles.None, CultureInfo.InvariantCulture, out maximum))
            {
                return false;
            }
        }

        _at = close + 1;
        return minimum <= MaxRepeat && maximum <= MaxRepeat && (maximum < 0 || minimum <= maximum)
            ? true
            : throw Error($"repetition {{{minimum},{maximum}}}; up to {MaxRepeat} are allowed");
    }

    private RegexNode ParseEscape()
    {
        _at++;
        if (_at == _pattern.Length)
        {
            throw Error("a backslash at the end");
        }

        switch (_pattern[_at])
        {
            case 'A':
                _at++;
                return new AnchorNode(Anchor.TextStart);
            case 'z':
                _at++;
                return new AnchorNode(Anchor.TextEnd);
            case 'Z':
                _at++;
                return new AnchorNode(Anchor.TextEndOrLastNewline);
            case 'b':
                _at++;
                return new AnchorNode(Anchor.WordBoundary);
            case 'B':
                _at++;
                return new AnchorNode(Anchor.NotWordBoundary);
            case 'R':
                _at++;
                return new AtomicNode(new ChoiceNode(
                [
                    new SequenceNode([Literal('\r'), Literal('\n')]),
                    new SetNode(new CharSet(c => c is (>= '\n' and <= '\r') or 0x85 or 0x2028 or 0x2029)),
                ]));
            case >= '1' and <= '9' or 'k' or 'g' or 'G' or 'K' or 'X':
                throw Error($"\\{_pattern[_at]}, which needs what was matched before");
        }

        return ReadClassEscape() is { } rule ? new SetNode(new CharSet(rule)) : Literal(ReadCharEscape());
    }

    private SetNode Literal(int codePoint)
    {
        var same = _ignoreCase ? CaseFolding.Same(codePoint) : [codePoint];
        return new SetNode(new CharSet(c => Array.IndexOf(same, c) >= 0));
    }

    /// <summary>The rule of an escape that stands for a class of characters, at the letter behind the backslash; null for another.</summary>
    private Func<int, bool>? ReadClassEscape()
    {
        var c = _pattern[_at];
        var rule = c is 'p' or 'P' ? ReadProperty() : ShortClass(char.ToLowerInvariant(c));
        if (rule is null || c is 'p' or 'P')
        {
            return rule is not null && c == 'P' ? x => !rule(x) : rule;
        }

        _at++;
        return char.IsUpper(c) ? x => !rule(x) : rule;
    }

    private static Func<int, bool>? ShortClass(char letter) => letter switch
    {
        's' => UnicodeClasses.IsSpace,
        'd' => CategoryRule(UnicodeClasses.CategoryBits("Nd")),
        'w' => UnicodeClasses.IsWord,
        'h' => x => x < 0x80 && char.IsAsciiHexDigit((char)x),
        _ => null,
    };

    private static Func<int, bool> CategoryRule(uint bits) => c => (UnicodeClasses.CategoryBit(c) & bits) != 0;

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
        var rule = Property(name) ?? throw Error($"the property {name}");
        return negated ? c => !rule(c) : rule;
    }

    private static Func<int, bool>? Property(string name)
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

    private static Func<int, bool>? Posix(string name) => name switch
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

    private int NextCodePoint()
    {
        Rune.DecodeFromUtf16(_pattern.AsSpan(_at), out var rune, out var length);
        _at += length;
        return rune.Value;
    }

    private bool Skip(char c)
    {
        var found = _at < _pattern.Length && _pattern[_at] == c;
        _at += found ? 1 : 0;
        return found;
    }

    private void CheckStack()
    {
        if (!RuntimeHelpers.TryEnsureSufficientExecutionStack())
        {
            throw Error("groups within groups without an end");
        }
    }

    private TokenizerException Error(string what) => new($"tokenizer.json: the pattern \"{_pattern}\" has {what} at position {_at}, which is not supported.");

    /// <summary>Reads what stands between square brackets: ranges, classes, classes within, intersections.</summary>
    private sealed class ClassParser(RegexParser parser)
    {
        public Func<int, bool> Parse()
        {
            parser.CheckStack();
            var negated = parser.Skip('^');
            var all = new List<Func<int, bool>>(); // parts between &&
            var any = new List<Func<int, bool>>();
            for (var first = true; ; first = false)
            {
                if (parser._at >= parser._pattern.Length)
                {
                    throw parser.Error("a '[' without its ']'");
                }

                if (!first && parser.Skip(']'))
                {
                    break;
                }

                if (parser._pattern.AsSpan(parser._at).StartsWith("&&"))
                {
                    parser._at += 2;
                    all.Add(Any(any));
                    any = [];
                    continue;
                }

                any.Add(ParseItem());
            }

            all.Add(Any(any));
            var rule = all.Count == 1 ? all[0] : c => all.TrueForAll(r => r(c));
            return negated ? c => !rule(c) : rule;
        }

        private static Func<int, bool> Any(List<Func<int, bool>> rules) => rules.Count == 1 ? rules[0] : c => rules.Exists(r => r(c));

        private Func<int, bool> ParseItem()
        {
            if (parser._pattern.AsSpan(parser._at).StartsWith("[:"))
            {
                return ParsePosix();
            }

            if (parser.Skip('['))
            {
                return Parse();
            }

            if (parser._pattern[parser._at] == '\\' && parser._at + 1 < parser._pattern.Length)
            {
                parser._at++;
                if (parser.ReadClassEscape() is { } rule)
                {
                    return rule;
                }

                parser._at--;
            }

            var low = ReadChar();
            var high = low;
            if (parser._at + 1 < parser._pattern.Length && parser._pattern[parser._at] == '-' && parser._pattern[parser._at + 1] is not (']' or '['))
            {
                parser._at++;
                high = ReadChar();
            }

            if (high < low)
            {
                throw parser.Error("a range that ends before it begins");
            }

            if (!parser._ignoreCase)
            {
                return c => c >= low && c <= high;
            }

            return c => (c >= low && c <= high) || Array.Exists(CaseFolding.Same(c), s => s >= low && s <= high);
        }

        private Func<int, bool> ParsePosix()
        {
            var close = parser._pattern.IndexOf(":]", parser._at, StringComparison.Ordinal);
            if (close < 0)
            {
                throw parser.Error("a '[:' without its ':]'");
            }

            var name = parser._pattern[(parser._at + 2)..close];
            parser._at = close + 2;
            var negated = name.StartsWith('^');
            var rule = Posix((negated ? name[1..] : name).ToUpperInvariant()) ?? throw parser.Error($"the class [:{name}:]");
            return negated ? c => !rule(c) : rule;
        }

        private int ReadChar()
        {
            if (!parser.Skip('\\'))
            {
                return parser.NextCodePoint();
            }

            if (parser._at == parser._pattern.Length)
            {
                throw parser.Error("a backslash at the end");
            }

            return parser.Skip('b') ? '\b' : parser.ReadCharEscape();
        }
    }
}
