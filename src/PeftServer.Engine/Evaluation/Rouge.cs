using System.Text.RegularExpressions;

namespace PeftServer.Engine.Evaluation;

/// <summary>Precision, recall and their harmonic mean.</summary>
public readonly record struct FScore(double Precision, double Recall)
{
    public double F1 => Precision + Recall > 0 ? 2 * Precision * Recall / (Precision + Recall) : 0;
}

/// <summary>
/// ROUGE (<see href="https://aclanthology.org/W04-1013/"/>) as Google's rouge-score counts it: words are runs of a–z and 0–9 of the text in lower
/// case, so what is in another script counts for nothing; optionally their Porter stems.
/// </summary>
public sealed partial class Rouge(bool useStemmer = false)
{
    /// <summary>Runs of <paramref name="n"/> words that both texts have.</summary>
    public FScore N(string reference, string candidate, int n)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(n, 1);
        var (wanted, given) = (NGrams.Count(Words(reference), n), NGrams.Count(Words(candidate), n));
        var common = NGrams.Common(wanted, given);
        return new FScore((double)common / Math.Max(1, given.Values.Sum()), (double)common / Math.Max(1, wanted.Values.Sum()));
    }

    /// <summary>The longest common subsequence of words.</summary>
    public FScore L(string reference, string candidate)
    {
        var (wanted, given) = (Words(reference), Words(candidate));
        if (wanted.Count == 0 || given.Count == 0)
        {
            return default;
        }

        var length = CommonPlaces(wanted, given).Count;
        return new FScore((double)length / given.Count, (double)length / wanted.Count);
    }

    /// <summary>For each sentence (a line) of the reference, the words that it has in common with the candidate's sentences, taken together.</summary>
    public FScore LSum(string reference, string candidate)
    {
        var (wanted, given) = (Sentences(reference), Sentences(candidate));
        var (wantedCount, givenCount) = (wanted.Sum(words => words.Count), given.Sum(words => words.Count));
        if (wantedCount == 0 || givenCount == 0)
        {
            return default;
        }

        var (leftWanted, leftGiven) = (NGrams.Count([.. wanted.SelectMany(words => words)], 1), NGrams.Count([.. given.SelectMany(words => words)], 1));
        var hits = 0;
        foreach (var sentence in wanted)
        {
            foreach (var word in given.SelectMany(other => CommonPlaces(sentence, other)).Distinct().Order().Select(at => sentence[at]))
            {
                if (leftWanted.GetValueOrDefault(word) > 0 && leftGiven.GetValueOrDefault(word) > 0)
                {
                    hits++;
                    leftWanted[word]--;
                    leftGiven[word]--;
                }
            }
        }

        return new FScore((double)hits / givenCount, (double)hits / wantedCount);
    }

    private List<IReadOnlyList<string>> Sentences(string text) => [.. text.Split('\n', StringSplitOptions.RemoveEmptyEntries).Select(Words)];

    private IReadOnlyList<string> Words(string text) =>
    [
        .. Word().Matches(text.ToLowerInvariant()).Select(word => word.Value).Select(word => useStemmer && word.Length > 3 ? PorterStemmer.Stem(word) : word),
    ];

    /// <summary>Places in <paramref name="wanted"/> of a longest common subsequence; among equals the one that rouge-score finds.</summary>
    private static List<int> CommonPlaces(IReadOnlyList<string> wanted, IReadOnlyList<string> given)
    {
        var table = new int[wanted.Count + 1, given.Count + 1];
        for (var i = 1; i <= wanted.Count; i++)
        {
            for (var j = 1; j <= given.Count; j++)
            {
                table[i, j] = wanted[i - 1] == given[j - 1] ? table[i - 1, j - 1] + 1 : Math.Max(table[i - 1, j], table[i, j - 1]);
            }
        }

        var places = new List<int>();
        for (int i = wanted.Count, j = given.Count; i > 0 && j > 0;)
        {
            if (wanted[i - 1] == given[j - 1])
            {
                places.Insert(0, i - 1);
                (i, j) = (i - 1, j - 1);
            }
            else if (table[i, j - 1] > table[i - 1, j])
            {
                j--;
            }
            else
            {
                i--;
            }
        }

        return places;
    }

    [GeneratedRegex("[a-z0-9]+")]
    private static partial Regex Word();
}
