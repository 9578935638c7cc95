using System.Text.RegularExpressions;

namespace PeftServer.Engine.Evaluation;

/// <summary>BLEU and GLEU of one sentence against one reference, from 0 to 1.</summary>
public static partial class Bleu
{
    private const int MaxOrder = 4;

    /// <summary>
    /// BLEU (<see href="https://aclanthology.org/P02-1040/"/>) as sacrebleu's <c>sentence_bleu</c>: the tokens of mteval-v13a, exponential smoothing, orders only as far
    /// as the candidate has n-grams.
    /// </summary>
    public static double Score(string reference, string candidate)
    {
        var (wanted, given) = (Tokens(reference), Tokens(candidate));
        var (sum, orders, halves, anyHit) = (0.0, 0, 1.0, false);
        for (var n = 1; n <= MaxOrder && given.Length >= n; n++, orders++)
        {
            var correct = NGrams.Common(NGrams.Count(wanted, n), NGrams.Count(given, n));
            anyHit |= correct > 0;
            halves = correct == 0 ? halves * 2 : halves;
            sum += Math.Log((correct == 0 ? 1 / halves : correct) / (given.Length - n + 1));
        }

        var brevity = given.Length < wanted.Length ? Math.Exp(1 - ((double)wanted.Length / Math.Max(1, given.Length))) : 1;
        return anyHit ? brevity * Math.Exp(sum / orders) : 0;
    }

    /// <summary>GLEU (<see href="https://arxiv.org/abs/1609.08144"/>) as NLTK's: n-grams of 1 to 4 words in common, over those of the longer side. Words are what white space parts.</summary>
    public static double Gleu(string reference, string candidate)
    {
        var (wanted, given) = (Split(reference), Split(candidate));
        var (common, wantedCount, givenCount) = (0, 0, 0);
        for (var n = 1; n <= MaxOrder; n++)
        {
            common += NGrams.Common(NGrams.Count(wanted, n), NGrams.Count(given, n));
            wantedCount += Math.Max(0, wanted.Length - n + 1);
            givenCount += Math.Max(0, given.Length - n + 1);
        }

        return wanted.Length == 0 || given.Length == 0 ? 0 : (double)common / Math.Max(wantedCount, givenCount);
    }

    private static string[] Tokens(string text)
    {
        text = text.TrimEnd().Replace("<skipped>", "", StringComparison.Ordinal).Replace("-\n", "", StringComparison.Ordinal).Replace('\n', ' ')
            .Replace("&quot;", "\"", StringComparison.Ordinal).Replace("&amp;", "&", StringComparison.Ordinal)
            .Replace("&lt;", "<", StringComparison.Ordinal).Replace("&gt;", ">", StringComparison.Ordinal);
        text = Symbols().Replace($" {text} ", " $1 ");
        text = PointBehindNoDigit().Replace(text, "$1 $2 ");
        text = PointBeforeNoDigit().Replace(text, " $1 $2");
        return Split(DashBehindDigit().Replace(text, "$1 $2 "));
    }

    private static string[] Split(string text) => text.Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries);

    [GeneratedRegex(@"([\{-\~\[-\` -\&\(-\+\:-\@\/])")]
    private static partial Regex Symbols();

    [GeneratedRegex(@"([^0-9])([\.,])")]
    private static partial Regex PointBehindNoDigit();

    [GeneratedRegex(@"([\.,])([^0-9])")]
    private static partial Regex PointBeforeNoDigit();

    [GeneratedRegex("([0-9])(-)")]
    private static partial Regex DashBehindDigit();
}
