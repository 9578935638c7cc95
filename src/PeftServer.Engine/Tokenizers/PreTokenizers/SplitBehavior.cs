namespace PeftServer.Engine.Tokenizers.PreTokenizers;

/// <summary>What becomes of the delimiters that a text is cut at, by the names of the tokenizers library.</summary>
internal enum SplitBehavior
{
    Removed,
    Isolated,
    MergedWithPrevious,
    MergedWithNext,
    Contiguous,
}

/// <summary>A stretch of text that is a delimiter, or lies between delimiters.</summary>
internal readonly record struct Stretch(int Start, int End, bool IsDelimiter);

/// <summary>Cuts a text at delimiters.</summary>
internal static class Splitting
{
    public static SplitBehavior Parse(string name) => Enum.TryParse<SplitBehavior>(name.Replace("_", "", StringComparison.Ordinal), ignoreCase: true, out var behavior)
        ? behavior
        : throw new TokenizerException($"tokenizer.json: there is no split behavior \"{name}\". Use Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous.");

    /// <summary>All of a text as stretches, given its delimiters.</summary>
    public static List<Stretch> Between(IEnumerable<(int Start, int End)> delimiters, int length, bool invert)
    {
        var stretches = new List<Stretch>();
        var done = 0;
        foreach (var (start, end) in delimiters)
        {
            if (start > done)
            {
                stretches.Add(new Stretch(done, start, invert));
            }

            stretches.Add(new Stretch(start, end, !invert));
            done = end;
        }

        if (done < length)
        {
            stretches.Add(new Stretch(done, length, invert));
        }

        return stretches;
    }

    public static void Apply(List<Stretch> stretches, SplitBehavior behavior, List<TextRange> parts)
    {
        switch (behavior)
        {
            case SplitBehavior.Isolated:
                stretches.ForEach(s => parts.Add(new TextRange(s.Start, s.End - s.Start)));
                break;
            case SplitBehavior.Removed:
                stretches.ForEach(s => parts.Add(new TextRange(s.Start, s.IsDelimiter ? 0 : s.End - s.Start)));
                break;
            case SplitBehavior.Contiguous:
                Join(stretches, (before, now) => before == now, parts);
                break;
            case SplitBehavior.MergedWithPrevious:
                Join(stretches, (before, now) => now && !before, parts);
                break;
            default:
                JoinBackwards(stretches, parts);
                break;
        }
    }

    private static void Join(List<Stretch> stretches, Func<bool, bool, bool> joins, List<TextRange> parts)
    {
        var first = parts.Count;
        var before = false;
        foreach (var stretch in stretches)
        {
            if (parts.Count > first && joins(before, stretch.IsDelimiter))
            {
                parts[^1] = new TextRange(parts[^1].Start, stretch.End - parts[^1].Start);
            }
            else
            {
                parts.Add(new TextRange(stretch.Start, stretch.End - stretch.Start));
            }

            before = stretch.IsDelimiter;
        }
    }

    private static void JoinBackwards(List<Stretch> stretches, List<TextRange> parts)
    {
        var joined = new List<TextRange>();
        var after = false;
        for (var i = stretches.Count - 1; i >= 0; i--)
        {
            var stretch = stretches[i];
            if (joined.Count > 0 && stretch.IsDelimiter && !after)
            {
                joined[^1] = new TextRange(stretch.Start, joined[^1].Start + joined[^1].Length - stretch.Start);
            }
            else
            {
                joined.Add(new TextRange(stretch.Start, stretch.End - stretch.Start));
            }

            after = stretch.IsDelimiter;
        }

        joined.Reverse();
        parts.AddRange(joined);
    }
}
