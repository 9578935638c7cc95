using System.Text;

namespace PeftServer.Engine.Tokenizers.Models;

/// <summary>A word is a token, or unknown.</summary>
internal sealed class WordLevelModel(Vocabulary vocabulary, string unkToken) : TokenModel
{
    public override int VocabularySize => vocabulary.Count;

    public override int? TokenToId(string token) => vocabulary.Find(token);

    public override string? IdToToken(int id) => vocabulary.Find(id);

    public override void Tokenize(ReadOnlySpan<char> word, List<Token> tokens) =>
        tokens.Add(new Token(vocabulary.TryGetId(word, out var id) ? id : vocabulary.Unknown(unkToken), 0, word.Length));
}

/// <summary>
/// Greedy longest match from the left; pieces that continue a word carry a prefix. A word that does not come out whole is
/// unknown. Wu et al. 2016, https://arxiv.org/abs/1609.08144.
/// </summary>
internal sealed class WordPieceModel(Vocabulary vocabulary, string unkToken, string prefix, int maxInputChars) : TokenModel
{
    // No piece is longer than the longest token, so longer ones need not be tried.
    private readonly int _longest = vocabulary.Ids.Keys.Select(t => t.Length).DefaultIfEmpty(0).Max();

    public override int VocabularySize => vocabulary.Count;

    public override int? TokenToId(string token) => vocabulary.Find(token);

    public override string? IdToToken(int id) => vocabulary.Find(id);

    public override void Tokenize(ReadOnlySpan<char> word, List<Token> tokens)
    {
        var from = tokens.Count;
        if (CountRunes(word) > maxInputChars || !TryTokenize(word, tokens))
        {
            tokens.RemoveRange(from, tokens.Count - from);
            tokens.Add(new Token(vocabulary.Unknown(unkToken), 0, word.Length));
        }
    }

    private bool TryTokenize(ReadOnlySpan<char> word, List<Token> tokens)
    {
        var candidate = new StringBuilder(prefix).Append(word).ToString().AsSpan();
        for (int start = 0, end; start < word.Length; start = end)
        {
            end = Math.Min(word.Length, start + _longest);
            var id = -1;
            for (; end > start; end -= end >= 2 && char.IsSurrogatePair(word[end - 2], word[end - 1]) ? 2 : 1)
            {
                var found = start == 0
                    ? vocabulary.TryGetId(word[..end], out id)
                    : vocabulary.TryGetId(Continued(candidate, start, end), out id);
                if (found)
                {
                    break;
                }
            }

            if (end <= start)
            {
                return false;
            }

            tokens.Add(new Token(id, start, end));
        }

        return true;
    }

    private string Continued(ReadOnlySpan<char> candidate, int start, int end) =>
        string.Concat(prefix, candidate.Slice(prefix.Length + start, end - start));

    private static int CountRunes(ReadOnlySpan<char> text)
    {
        var count = 0;
        foreach (var _ in text.EnumerateRunes())
        {
            count++;
        }

        return count;
    }
}
