using System.Text.RegularExpressions;

namespace PeftServer.Engine.Evaluation;

/// <summary>SQuAD's exact match and F1 of an answer (<see href="https://arxiv.org/abs/1606.05250"/>): without case, punctuation and articles.</summary>
public static partial class SquadScore
{
    private const string Punctuation = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";

    /// <summary>What of an answer is compared.</summary>
    public static string Normalise(string answer) => string.Join(
        ' ', Split(Article().Replace(string.Concat(answer.ToLowerInvariant().Where(c => !Punctuation.Contains(c, StringComparison.Ordinal))), " ")));

    public static double Exact(string reference, string candidate) => Normalise(reference) == Normalise(candidate) ? 1 : 0;

    public static double F1(string reference, string candidate)
    {
        var (wanted, given) = (Split(Normalise(reference)), Split(Normalise(candidate)));
        if (wanted.Length == 0 || given.Length == 0)
        {
            return wanted.Length == given.Length ? 1 : 0;
        }

        return 2.0 * NGrams.Common(NGrams.Count(wanted, 1), NGrams.Count(given, 1)) / (wanted.Length + given.Length);
    }

    private static string[] Split(string text) => text.Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries);

    [GeneratedRegex(@"\b(a|an|the)\b")]
    private static partial Regex Article();
}
