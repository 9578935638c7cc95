using System.Collections.Concurrent;

namespace PeftServer.Engine.Tokenizers.Patterns;

/// <summary>A compiled regular expression of tokenizer.json. May be used from several threads at once.</summary>
internal sealed class RegexPattern
{
    private const int StepsPerCharacter = 200;
    private const int StepsForAny = 5_000_000;

    private readonly RegexProgram _program;
    private readonly string _pattern;
    private readonly ConcurrentBag<RegexMatcher> _matchers = [];

    public RegexPattern(string pattern)
    {
        _pattern = pattern;
        _program = RegexCompiler.Compile(pattern, RegexParser.Parse(pattern));
    }

    /// <summary>Appends all matches in <paramref name="text"/>, from left to right, none overlapping.</summary>
    /// <exception cref="TokenizerException">The pattern takes too long on this text.</exception>
    public void FindAll(ReadOnlySpan<char> text, List<(int Start, int End)> matches)
    {
        if (!_matchers.TryTake(out var matcher))
        {
            matcher = new RegexMatcher(_pattern);
        }

        matcher.Allow(StepsForAny + ((long)text.Length * StepsPerCharacter));
        var last = -1;
        for (var from = 0; from <= text.Length && matcher.Find(_program, text, from, out var start, out var end);)
        {
            if (start == end && end == last)
            {
                from += from + 1 < text.Length && char.IsSurrogatePair(text[from], text[from + 1]) ? 2 : 1;
                continue; // nothing, right behind a match, is no match
            }

            matches.Add((start, end));
            (from, last) = (end, end);
        }

        _matchers.Add(matcher);
    }
}
