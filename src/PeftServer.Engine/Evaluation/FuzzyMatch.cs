namespace PeftServer.Engine.Evaluation;

/// <summary>How alike two texts are by their characters, as rapidfuzz's <c>ratio</c>: the share of both that is in their longest common subsequence.</summary>
public static class FuzzyMatch
{
    /// <summary>From 0 to 1; 1 for equal texts, empty ones included. A character is a code point.</summary>
    public static double Ratio(string one, string other) =>
        Ratio([.. one.EnumerateRunes().Select(rune => rune.Value)], [.. other.EnumerateRunes().Select(rune => rune.Value)]);

    /// <summary>
    /// rapidfuzz's <c>token_set_ratio</c>: words without order and repetition. The best ratio of what is common alone, common and the one's rest, common and the other's.
    /// </summary>
    public static double TokenSetRatio(string one, string other)
    {
        var (first, second) = (Words(one), Words(other));
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

    private static double Ratio(int[] a, int[] b)
    {
        if (a.Length + b.Length == 0)
        {
            return 1;
        }

        var row = new int[b.Length + 1];
        foreach (var character in a)
        {
            var diagonal = 0;
            for (var j = 1; j <= b.Length; j++)
            {
                var above = row[j];
                row[j] = character == b[j - 1] ? diagonal + 1 : Math.Max(above, row[j - 1]);
                diagonal = above;
            }
        }

        return 2.0 * row[^1] / (a.Length + b.Length);
    }

    private static List<string> Words(string text) => [.. text.Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries).Distinct().Order(StringComparer.Ordinal)];
}
