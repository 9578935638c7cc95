namespace PeftServer.Engine.Evaluation;

/// <summary>Runs of n words, counted.</summary>
internal static class NGrams
{
    /// <summary>How often each run of <paramref name="n"/> words is there. Words hold no line feed, which joins them to a key.</summary>
    public static Dictionary<string, int> Count(IReadOnlyList<string> words, int n)
    {
        var counts = new Dictionary<string, int>(StringComparer.Ordinal);
        for (var i = 0; i + n <= words.Count; i++)
        {
            var key = n == 1 ? words[i] : string.Join('\n', words.Skip(i).Take(n));
            counts[key] = counts.GetValueOrDefault(key) + 1;
        }

        return counts;
    }

    /// <summary>How many runs two texts share, each as often as both have it.</summary>
    public static int Common(Dictionary<string, int> one, Dictionary<string, int> other) =>
        one.Sum(entry => Math.Min(entry.Value, other.GetValueOrDefault(entry.Key)));
}
