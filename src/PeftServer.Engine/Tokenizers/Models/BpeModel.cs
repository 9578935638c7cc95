using System.Text;

namespace PeftServer.Engine.Tokenizers.Models;

/// <summary>
/// Byte-pair encoding: a word starts as characters, and the pair that was merged first in training is merged first.
/// Sennrich et al. 2016, https://arxiv.org/abs/1508.07909.
/// </summary>
internal sealed class BpeModel : TokenModel
{
    private readonly BpeOptions _options;
    private readonly Vocabulary _vocabulary;
    private readonly Dictionary<long, Merge> _merges;
    private readonly int[] _byteIds; // <0x00> … <0xFF>; empty where one is missing
    private readonly int? _unkId;
    private readonly WordCache<Token> _cache = new();

    public BpeModel(Vocabulary vocabulary, IEnumerable<(string Left, string Right)> merges, BpeOptions options)
    {
        _vocabulary = vocabulary;
        _options = options;
        _merges = ReadMerges(vocabulary, merges, options.ContinuingSubwordPrefix?.Length ?? 0);
        _byteIds = options.ByteFallback ? [.. Enumerable.Range(0, 256).Select(b => vocabulary.Find($"<0x{b:X2}>") ?? -1)] : [];
        _unkId = options.UnkToken is null ? null : vocabulary.Find(options.UnkToken);
    }

    public override int VocabularySize => _vocabulary.Count;

    public override int? TokenToId(string token) => _vocabulary.Find(token);

    public override string? IdToToken(int id) => _vocabulary.Find(id);

    public override void Tokenize(ReadOnlySpan<char> word, List<Token> tokens)
    {
        if (_cache.TryGet(word, out var known))
        {
            tokens.AddRange(known);
            return;
        }

        var from = tokens.Count;
        if (_options.IgnoreMerges && _vocabulary.TryGetId(word, out var whole))
        {
            tokens.Add(new Token(whole, 0, word.Length));
        }
        else
        {
            BpeWord.Merge(Symbols(word), _merges, tokens);
        }

        _cache.Set(word, [.. tokens.Skip(from)]);
    }

    private static Dictionary<long, Merge> ReadMerges(Vocabulary vocabulary, IEnumerable<(string Left, string Right)> merges, int prefixLength)
    {
        var result = new Dictionary<long, Merge>();
        var rank = 0;
        foreach (var (left, right) in merges)
        {
            var merged = left + right[Math.Min(prefixLength, right.Length)..];
            if (vocabulary.Find(left) is not { } a || vocabulary.Find(right) is not { } b || vocabulary.Find(merged) is not { } id)
            {
                throw new TokenizerException($"model.merges: the merge {rank} (\"{left}\" and \"{right}\") names a token that is not in model.vocab.");
            }

            result[Merge.Key(a, b)] = new Merge(rank++, id);
        }

        return result;
    }

    private List<Token> Symbols(ReadOnlySpan<char> word)
    {
        var symbols = new List<Token>(word.Length);
        Token? unk = null;
        for (int start = 0, length; start < word.Length; start += length)
        {
            Rune.DecodeFromUtf16(word[start..], out _, out length);
            var end = start + length;
            var piece = word[start..end];
            if ((start > 0 && _options.ContinuingSubwordPrefix is not null) || (end == word.Length && _options.EndOfWordSuffix is not null))
            {
                piece = (start > 0 ? _options.ContinuingSubwordPrefix : null) + piece.ToString() + (end == word.Length ? _options.EndOfWordSuffix : null);
            }

            if (_vocabulary.TryGetId(piece, out var id))
            {
                if (unk is { } before)
                {
                    symbols.Add(before);
                    unk = null;
                }

                symbols.Add(new Token(id, start, end));
            }
            else if (!TryAddBytes(piece, start, end, symbols) && _options.UnkToken is not null)
            {
                if (_unkId is not { } unkId)
                {
                    throw new TokenizerException($"model.unk_token \"{_options.UnkToken}\" is not in model.vocab.");
                }

                if (unk is { } before && !_options.FuseUnk)
                {
                    symbols.Add(before);
                    unk = null;
                }

                unk = new Token(unkId, unk?.Start ?? start, end);
            }
        }

        if (unk is { } last)
        {
            symbols.Add(last);
        }

        return symbols;
    }

    private bool TryAddBytes(ReadOnlySpan<char> piece, int start, int end, List<Token> symbols)
    {
        if (_byteIds.Length == 0)
        {
            return false;
        }

        Span<byte> bytes = stackalloc byte[piece.Length * 3];
        bytes = bytes[..Encoding.UTF8.GetBytes(piece, bytes)];
        foreach (var b in bytes)
        {
            if (_byteIds[b] < 0)
            {
                return false;
            }
        }

        foreach (var b in bytes)
        {
            symbols.Add(new Token(_byteIds[b], start, end));
        }

        return true;
    }
}

/// <summary>The switches of a BPE model, by the names of tokenizer.json.</summary>
internal sealed record BpeOptions
{
    public string? UnkToken { get; init; }

    public string? ContinuingSubwordPrefix { get; init; }

    public string? EndOfWordSuffix { get; init; }

    public bool FuseUnk { get; init; }

    public bool ByteFallback { get; init; }

    public bool IgnoreMerges { get; init; }
}
