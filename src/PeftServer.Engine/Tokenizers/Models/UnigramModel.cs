using System.Text;

namespace PeftServer.Engine.Tokenizers.Models;

/// <summary>
/// The cut of a word whose tokens are likeliest together, found from left to right. Kudo 2018,
/// https://arxiv.org/abs/1804.10959.
/// </summary>
internal sealed class UnigramModel : TokenModel
{
    // An unknown character is this much less likely than the least likely token.
    private const double UnknownPenalty = 10;

    private readonly IReadOnlyList<(string Token, double Score)> _vocabulary;
    private readonly Dictionary<string, int> _ids = new(StringComparer.Ordinal);
    private readonly Dictionary<string, int>.AlternateLookup<ReadOnlySpan<char>> _bySpan;
    private readonly PrefixTrie _trie = new();
    private readonly double _unknownScore;
    private readonly int? _unkId;
    private readonly int[]? _byteIds;

    public UnigramModel(IReadOnlyList<(string Token, double Score)> vocabulary, int? unkId, bool byteFallback)
    {
        if (unkId is { } id && id >= vocabulary.Count)
        {
            throw new TokenizerException($"tokenizer.json: model.unk_id is {id}, beyond the vocabulary of {vocabulary.Count} tokens.");
        }

        (_vocabulary, _unkId) = (vocabulary, unkId);
        for (var i = 0; i < vocabulary.Count; i++)
        {
            _ids[vocabulary[i].Token] = i;
            _trie.Add(vocabulary[i].Token, i);
        }

        _bySpan = _ids.GetAlternateLookup<ReadOnlySpan<char>>();
        _unknownScore = vocabulary.Select(v => v.Score).DefaultIfEmpty(0).Min() - UnknownPenalty;
        int[] bytes = byteFallback ? [.. Enumerable.Range(0, 256).Select(b => _ids.GetValueOrDefault($"<0x{b:X2}>", -1))] : [];
        _byteIds = byteFallback ? bytes : null;
    }

    public override int VocabularySize => _vocabulary.Count;

    public override int? TokenToId(string token) => _ids.TryGetValue(token, out var id) ? id : null;

    public override string? IdToToken(int id) => id >= 0 && id < _vocabulary.Count ? _vocabulary[id].Token : null;

    public override void Tokenize(ReadOnlySpan<char> word, List<Token> tokens)
    {
        var best = BestPath(word);
        var cuts = new List<(int Start, int End)>();
        for (var end = word.Length; end > 0; end = best[end].Start)
        {
            var start = best[end].Start;
            var joinsUnknown = best[end].Id == _unkId && cuts.Count > 0 && best[cuts[^1].End].Id == _unkId && cuts[^1].Start == end;
            if (joinsUnknown)
            {
                cuts[^1] = (start, cuts[^1].End); // unknown characters in a row are one token
            }
            else
            {
                cuts.Add((start, end));
            }
        }

        for (var i = cuts.Count - 1; i >= 0; i--)
        {
            AddToken(word, cuts[i].Start, cuts[i].End, tokens);
        }
    }

    private (int Start, double Score, int Id)[] BestPath(ReadOnlySpan<char> word)
    {
        var best = new (int Start, double Score, int Id)[word.Length + 1];
        Array.Fill(best, (-1, 0, -1), 1, word.Length);
        for (int start = 0, length; start < word.Length; start += length)
        {
            Rune.DecodeFromUtf16(word[start..], out _, out length);
            var score = best[start].Score;
            var hasSingle = false;
            var node = 0;
            for (var end = start; end < word.Length && (node = _trie.Next(node, word[end])) > 0; end++)
            {
                if (_trie.ValueOf(node) is >= 0 and var id)
                {
                    Offer(best, end + 1, start, score + _vocabulary[id].Score, id);
                    hasSingle |= end + 1 - start == length;
                }
            }

            if (!hasSingle)
            {
                Offer(best, start + length, start, score + _unknownScore, _unkId
                    ?? throw new TokenizerException("The text has characters outside of the vocabulary, and model.unk_id of tokenizer.json is not set."));
            }
        }

        return best;
    }

    private static void Offer((int Start, double Score, int Id)[] best, int end, int start, double score, int id)
    {
        if (best[end].Start < 0 || score > best[end].Score)
        {
            best[end] = (start, score, id);
        }
    }

    private void AddToken(ReadOnlySpan<char> word, int start, int end, List<Token> tokens)
    {
        if (_bySpan.TryGetValue(word[start..end], out var id))
        {
            tokens.Add(new Token(id, start, end));
            return;
        }

        if (_byteIds is not null)
        {
            var bytes = Encoding.UTF8.GetBytes(word[start..end].ToString());
            if (Array.TrueForAll(bytes, b => _byteIds[b] >= 0))
            {
                tokens.AddRange(bytes.Select(b => new Token(_byteIds[b], start, end)));
                return;
            }
        }

        tokens.Add(new Token(_unkId ?? 0, start, end, word[start..end].ToString()));
    }
}
