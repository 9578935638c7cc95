using System.Text;
using PeftServer.Engine.Tokenizers.Patterns;
using PeftServer.Engine.Tokenizers.Unicode;

namespace PeftServer.Engine.Tokenizers.PreTokenizers;

/// <summary>Cuts at characters of a kind, each of which is a delimiter by itself: white space, punctuation, digits, a letter.</summary>
internal sealed class CharacterCutter(Func<int, bool> isDelimiter, SplitBehavior behavior) : Cutter
{
    public static CharacterCutter WhitespaceSplit { get; } = new(UnicodeClasses.IsSpace, SplitBehavior.Removed);

    public override void Cut(ReadOnlySpan<char> text, List<TextRange> parts)
    {
        var delimiters = new List<(int Start, int End)>();
        for (int at = 0, length; at < text.Length; at += length)
        {
            Rune.DecodeFromUtf16(text[at..], out var rune, out length);
            if (isDelimiter(rune.Value))
            {
                delimiters.Add((at, at + length));
            }
        }

        Splitting.Apply(Splitting.Between(delimiters, text.Length, invert: false), behavior, parts);
    }
}

/// <summary>Cuts at the matches of a pattern, or with <c>invert</c> between them.</summary>
internal sealed class PatternCutter(TextPattern pattern, SplitBehavior behavior, bool invert) : Cutter
{
    public override void Cut(ReadOnlySpan<char> text, List<TextRange> parts)
    {
        var matches = new List<(int Start, int End)>();
        pattern.FindAll(text, matches);
        if (behavior is SplitBehavior.Isolated)
        {
            Isolate(matches, text.Length, parts); // what byte-level tokenizers do with all their text
        }
        else
        {
            Splitting.Apply(Splitting.Between(matches, text.Length, invert), behavior, parts);
        }
    }

    private static void Isolate(List<(int Start, int End)> matches, int length, List<TextRange> parts)
    {
        var done = 0;
        foreach (var (start, end) in matches)
        {
            if (start > done)
            {
                parts.Add(new TextRange(done, start - done));
            }

            parts.Add(new TextRange(start, end - start));
            done = end;
        }

        if (done < length)
        {
            parts.Add(new TextRange(done, length - done));
        }
    }
}

/// <summary>Words and runs of what is neither word nor white space: <c>\w+|[^\w\s]+</c>.</summary>
internal sealed class WhitespaceCutter : Cutter
{
    public override void Cut(ReadOnlySpan<char> text, List<TextRange> parts)
    {
        var start = 0;
        var before = -1;
        for (int at = 0, length; at < text.Length; at += length)
        {
            Rune.DecodeFromUtf16(text[at..], out var rune, out length);
            var kind = UnicodeClasses.IsWord(rune.Value) || rune.Value is 0x200C or 0x200D ? 2 : UnicodeClasses.IsSpace(rune.Value) ? 0 : 1;
            if (kind != before)
            {
                Add(parts, start, at, before);
                (start, before) = (at, kind);
            }
        }

        Add(parts, start, text.Length, before);
    }

    private static void Add(List<TextRange> parts, int start, int end, int kind)
    {
        if (kind > 0)
        {
            parts.Add(new TextRange(start, end - start));
        }
    }
}

/// <summary>Pieces of so many characters.</summary>
internal sealed class FixedLengthCutter(int length) : Cutter
{
    public override void Cut(ReadOnlySpan<char> text, List<TextRange> parts)
    {
        var (start, count) = (0, 0);
        for (int at = 0, size; at < text.Length; at += size)
        {
            Rune.DecodeFromUtf16(text[at..], out _, out size);
            if (count++ == length)
            {
                parts.Add(new TextRange(start, at - start));
                (start, count) = (at, 1);
            }
        }

        parts.Add(new TextRange(start, text.Length - start));
    }
}

/// <summary>BERT's: at white space, then each punctuation character by itself.</summary>
internal sealed class BertCutter : Cutter
{
    public override void Cut(ReadOnlySpan<char> text, List<TextRange> parts)
    {
        var start = 0;
        for (int at = 0, length; at < text.Length; at += length)
        {
            Rune.DecodeFromUtf16(text[at..], out var rune, out length);
            var isSpace = UnicodeClasses.IsSpace(rune.Value);
            if (isSpace || UnicodeClasses.IsPunctuation(rune.Value))
            {
                parts.Add(new TextRange(start, at - start));
                parts.Add(new TextRange(at, isSpace ? 0 : length));
                start = at + length;
            }
        }

        parts.Add(new TextRange(start, text.Length - start));
    }
}

/// <summary>Where the script changes; Hiragana and Katakana count as Han, spaces go with what is before them.</summary>
internal sealed class ScriptCutter : Cutter
{
    public override void Cut(ReadOnlySpan<char> text, List<TextRange> parts)
    {
        int? start = null;
        string? last = null;
        var hasLast = false;
        for (int at = 0, length; at < text.Length; at += length)
        {
            Rune.DecodeFromUtf16(text[at..], out var rune, out length);
            var script = ScriptOf(rune.Value);
            if (script is null)
            {
                continue;
            }

            if (!hasLast || script != last)
            {
                if (start is { } from)
                {
                    parts.Add(new TextRange(from, at - from));
                }

                start = at;
            }

            (last, hasLast) = (script, true);
        }

        if (start is { } rest)
        {
            parts.Add(new TextRange(rest, text.Length - rest));
        }
    }

    private static string? ScriptOf(int codePoint) => codePoint switch
    {
        ' ' => null,
        0x30FC => "Han",
        _ => UnicodeScripts.Of(codePoint) switch
        {
            "Hiragana" or "Katakana" => "Han",
            var script => script,
        },
    };
}
