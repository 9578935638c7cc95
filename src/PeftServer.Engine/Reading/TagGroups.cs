using System.Text;
using PeftServer.Engine.Tokenizers;

namespace PeftServer.Engine.Reading;

/// <summary>How the tags of tokens become entities: the strategies of transformers' token-classification pipeline.</summary>
public enum AggregationStrategy
{
    /// <summary>They do not: each token has its tag.</summary>
    None,

    /// <summary>Neighbouring tokens of one kind are an entity.</summary>
    Simple,

    /// <summary>A word has the tag of its first token, which is what training teaches; neighbouring words of one kind are an entity.</summary>
    First,

    /// <summary>A word has the likeliest tag by the mean of its tokens.</summary>
    Average,

    /// <summary>A word has the tag of its surest token.</summary>
    Max,
}

/// <summary>Tokens of one kind.</summary>
/// <param name="Label">The kind without B- and I-; a token's whole tag where nothing is aggregated.</param>
/// <param name="Score">Its probability, the mean over what it is made of.</param>
/// <param name="Word">The text.</param>
/// <param name="Start">Its first code point.</param>
/// <param name="End">The code point behind its last.</param>
/// <param name="Token">Number of the token where nothing is aggregated.</param>
public sealed record TagGroup(string Label, double Score, string Word, int Start, int End, int? Token = null);

/// <summary>Puts the tags of a text's tokens together.</summary>
public static class TagGroups
{
    /// <summary>The entities of <paramref name="text"/>, whose tokens are <paramref name="encoding"/> and got the scores <paramref name="reading"/>.</summary>
    public static IReadOnlyList<TagGroup> Of(
        string text, TokenEncoding encoding, Reading reading, IReadOnlyList<string> labels, AggregationStrategy strategy, IReadOnlyCollection<string> ignored)
    {
        var runes = text.EnumerateRunes().ToArray();
        var tokens = Enumerable.Range(0, encoding.Count).Where(i => !encoding.SpecialTokensMask[i])
            .Select(i => Token.Of(i, encoding.Offsets[i], runes, ScoreActivation.Softmax.Of(reading.Rows[i]))).Where(token => token.End > token.Start).ToList();
        if (strategy is AggregationStrategy.None)
        {
            return [.. tokens.Select(token => (token, best: Likeliest(token.Scores))).Where(tagged => !ignored.Contains(labels[tagged.best]))
                .Select(tagged => new TagGroup(
                    labels[tagged.best], tagged.token.Scores[tagged.best], CodePoints.Part(text, tagged.token.Start, tagged.token.End), tagged.token.Start, tagged.token.End, tagged.token.Index))];
        }

        var groups = new List<List<(string Tag, double Score, int Start, int End)>>();
        foreach (var word in Words(tokens, strategy is AggregationStrategy.Simple).Select(word => Tagged(word, strategy, labels)))
        {
            if (groups is [.., var last] && Kind(word.Tag) == Kind(last[^1].Tag) && !word.Tag.StartsWith("B-", StringComparison.Ordinal))
            {
                last.Add(word);
            }
            else
            {
                groups.Add([word]);
            }
        }

        return [.. groups.Where(group => !ignored.Contains(group[0].Tag) && !ignored.Contains(Kind(group[0].Tag)))
            .Select(group => new TagGroup(
                Kind(group[0].Tag), group.Average(word => word.Score), CodePoints.Part(text, group[0].Start, group[^1].End), group[0].Start, group[^1].End))];
    }

    private static (string Tag, double Score, int Start, int End) Tagged(List<Token> word, AggregationStrategy strategy, IReadOnlyList<string> labels)
    {
        var scores = strategy switch
        {
            AggregationStrategy.Average => [.. Enumerable.Range(0, labels.Count).Select(label => word.Average(token => token.Scores[label]))],
            AggregationStrategy.Max => word.MaxBy(token => token.Scores.Max())!.Scores,
            _ => word[0].Scores,
        };
        var best = Likeliest(scores);
        return (labels[best], scores[best], word[0].Start, word[^1].End);
    }

    /// <summary>Tokens that go on where the last one ended, in the midst of letters and digits, are of one word.</summary>
    private static IEnumerable<List<Token>> Words(List<Token> tokens, bool eachByItself)
    {
        var word = new List<Token>();
        foreach (var token in tokens)
        {
            if (word.Count > 0 && (eachByItself || !token.GoesOn || token.Start != word[^1].End))
            {
                yield return word;
                word = [];
            }

            word.Add(token);
        }

        if (word.Count > 0)
        {
            yield return word;
        }
    }

    private static string Kind(string tag) => tag.StartsWith("B-", StringComparison.Ordinal) || tag.StartsWith("I-", StringComparison.Ordinal) ? tag[2..] : tag;

    private static int Likeliest(double[] scores) => Array.IndexOf(scores, scores.Max());

    private sealed record Token(int Index, int Start, int End, bool GoesOn, double[] Scores)
    {
        /// <summary>Without the spaces before it, which some tokenizers count to a token.</summary>
        public static Token Of(int index, (int Start, int End) at, Rune[] text, double[] scores)
        {
            var (start, end) = (at.Start, Math.Min(at.End, text.Length));
            while (start < end && Rune.IsWhiteSpace(text[start]))
            {
                start++;
            }

            return new Token(index, start, end, start > 0 && start < end && IsOfWord(text[start - 1]) && IsOfWord(text[start]), scores);
        }

        private static bool IsOfWord(Rune rune) => Rune.IsLetterOrDigit(rune) || Rune.GetUnicodeCategory(rune) is
            System.Globalization.UnicodeCategory.NonSpacingMark or System.Globalization.UnicodeCategory.SpacingCombiningMark;
    }
}
