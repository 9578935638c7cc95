namespace PeftServer.Engine.Tokenizers.Patterns;

internal sealed partial class RegexParser
{
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
            var rule = RegexClasses.Posix((negated ? name[1..] : name).ToUpperInvariant()) ?? throw parser.Error($"the class [:{name}:]");
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
