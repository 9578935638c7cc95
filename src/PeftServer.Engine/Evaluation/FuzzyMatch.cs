namespace PeftServer.Engine.Evaluation;

/// <summary>
/// How alike two texts are by their characters, as rapidfuzz (<see href="https://rapidfuzz.github.io/RapidFuzz/Usage/fuzz.html"/>) measures it, from 0 to 1. A character is a
/// code point; words are what white space parts.
/// </summary>
public static class FuzzyMatch
{
    /// <summary>What a likeness of words counts beside one of whole texts.</summary>
    private const double WordScale = 0.95;

    /// <summary><c>ratio</c>: the share of both that is in their longest common subsequence; 1 for equal texts, empty ones included.</summary>
    public static double Ratio(string one, string other) => Ratio(Characters(one), Characters(other));

    /// <summary>
    /// <c>WRatio</c>: the best of several measures, by how far the lengths are apart. Up to 1.5 times: <see cref="Ratio(string, string)"/>, and that of the words, sorted or as a set, times
    /// 0.95. Beyond: the same of the longer text's best passage, times 0.9, or 0.6 beyond 8 times. 0 where a text is empty.
    /// </summary>
    public static double WeightedRatio(string one, string other)
    {
        var (a, b) = (Characters(one), Characters(other));
        if (a.Length == 0 || b.Length == 0)
        {
            return 0;
        }

        var (lengths, whole) = ((double)Math.Max(a.Length, b.Length) / Math.Min(a.Length, b.Length), Ratio(a, b));
        if (lengths < 1.5)
        {
            return Math.Max(whole, WordScale * Math.Max(TokenSetRatio(one, other), TokenSortRatio(one, other)));
        }

        var scale = lengths <= 8 ? 0.9 : 0.6;
        return Math.Max(whole, scale * Math.Max(PartialRatio(a, b), WordScale * PartialTokenRatio(one, other)));
    }

    /// <summary><c>partial_ratio</c>: the ratio of the shorter text and the passage of the longer one, up to as long, that is most like it.</summary>
    public static double PartialRatio(string one, string other) => PartialRatio(Characters(one), Characters(other));

    /// <summary><c>token_sort_ratio</c>: the ratio of the words in alphabetical order.</summary>
    public static double TokenSortRatio(string one, string other) => Ratio(string.Join(' ', Sorted(Words(one))), string.Join(' ', Sorted(Words(other))));

    /// <summary>
    /// <c>token_set_ratio</c>: words without order and repetition. The best ratio of what is common alone, common and the one's rest, common and the other's.
    /// </summary>
    public static double TokenSetRatio(string one, string other)
    {
        var (first, second) = (Sorted(Words(one).Distinct()), Sorted(Words(other).Distinct()));
        if (first.Count == 0 || second.Count == 0)
        {
            return 0;
        }

        var common = string.Join(' ', first.Intersect(second));
        var (left, right) = (string.Join(' ', first.Except(second)), string.Join(' ', second.Except(first)));
        if (common.Length > 0 && (left.Length == 0 || right.Length == 0))
        {
            return 1;
        }

        string Whole(string rest) => common.Length == 0 ? rest : $"{common} {rest}";
        var best = Ratio(Whole(left), Whole(right));
        return common.Length == 0 ? best : Math.Max(best, Math.Max(Ratio(common, Whole(left)), Ratio(common, Whole(right))));
    }

    /// <summary><c>partial_token_ratio</c>: 1 where a word is in both, else the better partial ratio of all words sorted, and of those words without repetition.</summary>
    public static double PartialTokenRatio(string one, string other)
    {
        var (first, second) = (Words(one), Words(other));
        return first.Intersect(second).Any() ? 1 : Math.Max(
            PartialRatio(string.Join(' ', Sorted(first)), string.Join(' ', Sorted(second))),
            PartialRatio(string.Join(' ', Sorted(first.Distinct())), string.Join(' ', Sorted(second.Distinct()))));
    }

    private static double Ratio(int[] a, int[] b) => a.Length + b.Length == 0 ? 1 : 2.0 * new CommonSubsequence(a).With(b) / (a.Length + b.Length);

    private static double PartialRatio(int[] a, int[] b)
    {
        var (shorter, longer) = a.Length <= b.Length ? (a, b) : (b, a);
        if (shorter.Length == 0)
        {
            return longer.Length == 0 ? 1 : 0;
        }

        var best = BestPassage(shorter, longer);
        return best < 1 && a.Length == b.Length ? Math.Max(best, BestPassage(longer, shorter)) : best;
    }

    /// <summary>Every passage as long as the text, and at either end of the longer one every shorter passage too.</summary>
    private static double BestPassage(int[] text, int[] longer)
    {
        var (pattern, known, best) = (new CommonSubsequence(text), text.ToHashSet(), 0.0);
        for (var end = 1; end < longer.Length + text.Length && best < 1; end++)
        {
            var (from, to) = (Math.Max(0, end - text.Length), Math.Min(end, longer.Length));
            if (known.Contains(to < longer.Length ? longer[to - 1] : longer[from])) // a character that the text lacks is no end of a best passage
            {
                best = Math.Max(best, 2.0 * pattern.With(longer.AsSpan(from..to)) / (text.Length + to - from));
            }
        }

        return best;
    }

    private static int[] Characters(string text) => [.. text.EnumerateRunes().Select(rune => rune.Value)];

    private static string[] Words(string text) => text.Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries);

    private static List<string> Sorted(IEnumerable<string> words) => [.. words.Order(StringComparer.Ordinal)];
}
