using PeftServer.Engine.Tokenizers.ChatTemplates;
using PeftServer.Engine.Tokenizers.Decoders;
using PeftServer.Engine.Tokenizers.Models;
using PeftServer.Engine.Tokenizers.Normalizers;
using PeftServer.Engine.Tokenizers.PostProcessors;
using PeftServer.Engine.Tokenizers.PreTokenizers;

namespace PeftServer.Engine.Tokenizers;

/// <summary>
/// Text to tokens and back, as a Hugging Face model folder defines it: <c>tokenizer.json</c> and the files beside it. Gives
/// the ids, offsets and texts of the <c>tokenizers</c> library. May be used from several threads at once.
/// </summary>
public sealed class Tokenizer
{
    private readonly TokenizerParts _parts;
    private readonly AddedVocabulary _added;
    private readonly ByteLevelPipeline? _byteLevel;
    private readonly SpecialTokens _special;
    private readonly CharTrie<AddedToken> _specialTrie = new();

    internal Tokenizer(TokenizerParts parts, SpecialTokens special, ChatTemplate? chatTemplate)
    {
        _parts = parts;
        _byteLevel = ByteLevelPipeline.TryCreate(parts);
        _special = special;
        _added = new AddedVocabulary(parts.AddedTokens, parts.Normalizer is null ? null : s => parts.Normalizer.Normalize(new AlignedText(s)).ToString());
        foreach (var token in _added.Tokens.Where(t => t.Special))
        {
            _specialTrie.Add(token.Content, token);
        }

        ChatTemplate = chatTemplate;
        BosTokenId = IdOf(special.Bos);
        EosTokenId = IdOf(special.Eos);
        PadTokenId = IdOf(special.Pad);
        UnkTokenId = IdOf(special.Unk);
        VocabularySize = Math.Max(parts.Model.VocabularySize, _added.Tokens.Count == 0 ? 0 : _added.Tokens.Max(t => t.Id) + 1);
    }

    public int? BosTokenId { get; }

    public int? EosTokenId { get; }

    public int? PadTokenId { get; }

    public int? UnkTokenId { get; }

    /// <summary>One more than the highest id, added tokens included. The model's embedding may be larger.</summary>
    public int VocabularySize { get; }

    /// <summary>How a chat becomes text; absent for a model that was not made for chats.</summary>
    public ChatTemplate? ChatTemplate { get; }

    public IReadOnlyCollection<AddedToken> AddedTokens => _added.Tokens;

    /// <summary>The texts of bos_token, eos_token and the like, by those names, as chat templates see them.</summary>
    internal IReadOnlyDictionary<string, string> SpecialTokenTexts => _special.Texts;

    /// <summary>Reads a model folder. Throws <see cref="TokenizerException"/> naming file and remedy.</summary>
    public static Tokenizer Load(string folder) => TokenizerFolder.Load(folder);

    public int? TokenToId(string token) => _added.Find(token)?.Id ?? _parts.Model.TokenToId(token);

    public string? IdToToken(int id) => _added.Find(id)?.Content ?? _parts.Model.IdToToken(id);

    /// <summary>True for ids that mark structure and are left out of text for people.</summary>
    public bool IsSpecial(int id) => _added.Find(id) is { } token && _added.IsSpecial(token.Content);

    public int[] Encode(string text, bool addSpecialTokens = true)
    {
        var ids = EncodeIds(text, null);
        if (!addSpecialTokens || _parts.PostProcessor is null || _parts.PostProcessor.AddedTokens(pair: false) == 0)
        {
            return ids;
        }

        // Post-processors move ids as they stand; offsets are not asked for.
        var plain = new TokenEncoding();
        foreach (var id in ids)
        {
            plain.Add(id, "", (0, 0), special: false, typeId: 0);
        }

        return [.. Finish([plain], addSpecialTokens: true).Ids];
    }

    /// <summary>Tokens with their offsets, for one text or a pair, with the post-processor's special tokens or without.</summary>
    /// <exception cref="ArgumentException">The truncation cannot be done.</exception>
    public TokenEncoding EncodeWithOffsets(string text, string? pair = null, bool addSpecialTokens = true, TruncationOptions? truncation = null)
    {
        List<TokenEncoding> encodings = [EncodePlain(text, 0)];
        if (pair is not null)
        {
            encodings.Add(EncodePlain(pair, 1));
        }

        if (truncation is not null)
        {
            var added = addSpecialTokens ? _parts.PostProcessor?.AddedTokens(pair is not null) ?? 0 : 0;
            EncodingLengths.Truncate(encodings, truncation, Math.Max(truncation.MaxLength - added, 0));
        }

        var whole = Finish(encodings, addSpecialTokens);
        if (pair is null)
        {
            whole.OverflowingParts = [.. encodings[0].OverflowingParts.Select(part => Finish([part], addSpecialTokens))];
        }

        return whole;
    }

    /// <summary>Texts made equally long: each shortened, then all padded.</summary>
    /// <exception cref="ArgumentException">The truncation cannot be done.</exception>
    public IReadOnlyList<TokenEncoding> EncodeBatch(
        IReadOnlyList<string> texts, bool addSpecialTokens = true, TruncationOptions? truncation = null, PaddingOptions? padding = null)
    {
        var encodings = texts.Select(t => EncodeWithOffsets(t, null, addSpecialTokens, truncation)).ToList();
        if (padding is not null)
        {
            EncodingLengths.Pad(encodings, padding);
        }

        return encodings;
    }

    public string Decode(ReadOnlySpan<int> ids, bool skipSpecialTokens = true)
    {
        var tokens = new List<string>(ids.Length);
        foreach (var id in ids)
        {
            // Ids that nothing stands behind (a padded embedding has some) decode to nothing.
            if ((_added.DecodedForm(id) ?? _parts.Model.IdToToken(id)) is { } token && !(skipSpecialTokens && _added.IsSpecial(token)))
            {
                tokens.Add(token);
            }
        }

        return _parts.Decoder is null ? string.Join(' ', tokens) : string.Concat(_parts.Decoder.Decode(tokens));
    }

    /// <summary>Decodes ids one at a time.</summary>
    public StreamingDecoder CreateStreamingDecoder(bool skipSpecialTokens = true) => new(this, skipSpecialTokens);

    /// <summary>The first special token in <paramref name="text"/>.</summary>
    internal (int Start, int End)? FindSpecial(ReadOnlySpan<char> text) =>
        _specialTrie.FindNext(text, 0, out var start, out var end, out _) ? (start, end) : null;

    /// <summary>Ids without a template's; <paramref name="mayMatch"/> says where in the text a special token may be found.</summary>
    internal int[] EncodeIds(string text, Func<int, int, bool>? mayMatch)
    {
        var ids = new List<int>((text.Length / 3) + 1);
        if (_byteLevel is not null)
        {
            foreach (var piece in Pieces(text, mayMatch))
            {
                if (piece.Token is { } token)
                {
                    ids.Add(token.Id);
                }
                else
                {
                    _byteLevel.Encode(piece.Text.Span, ids);
                }
            }

            return [.. ids];
        }

        var tokens = new List<Token>();
        foreach (var (word, added) in Words(text, mayMatch))
        {
            if (added is not null)
            {
                ids.Add(added.Id);
                continue;
            }

            tokens.Clear();
            _parts.Model.Tokenize(word.Span, tokens);
            foreach (var token in tokens)
            {
                ids.Add(token.Id);
            }
        }

        return [.. ids];
    }

    /// <summary>Tokens and their offsets in UTF-16 units of <paramref name="text"/>.</summary>
    internal IEnumerable<(Token Token, Alignment Offsets)> EncodeAligned(string text, Func<int, int, bool>? mayMatch)
    {
        var tokens = new List<Token>();
        foreach (var (word, added) in Words(text, mayMatch))
        {
            if (added is not null)
            {
                yield return (new Token(added.Id, 0, word.Length, word.ToString()), word.Cover(0, word.Length));
                continue;
            }

            tokens.Clear();
            _parts.Model.Tokenize(word.Span, tokens);
            foreach (var token in tokens)
            {
                yield return (token, word.Cover(token.Start, token.End));
            }
        }
    }

    /// <summary>The text normalised and cut at added tokens.</summary>
    private List<TextPiece> Pieces(string text, Func<int, int, bool>? mayMatch)
    {
        var pieces = new List<TextPiece>();
        _added.Split(new AlignedText(text), _parts.Normalizer is null ? null : _parts.Normalizer.Normalize, mayMatch, pieces);
        return pieces;
    }

    private List<TextPiece> Words(string text, Func<int, int, bool>? mayMatch)
    {
        var pieces = Pieces(text, mayMatch);
        if (_parts.PreTokenizer is null)
        {
            return pieces;
        }

        var words = new List<TextPiece>(text.Length / 4);
        var cut = new List<AlignedText>();
        foreach (var piece in pieces)
        {
            if (piece.Token is not null)
            {
                words.Add(piece);
                continue;
            }

            cut.Clear();
            _parts.PreTokenizer.Split(piece.Text, cut);
            foreach (var word in cut)
            {
                if (!word.IsEmpty)
                {
                    words.Add(new TextPiece(word, null));
                }
            }
        }

        return words;
    }

    private TokenEncoding EncodePlain(string text, int typeId)
    {
        var encoding = new TokenEncoding();
        var codePoints = CodePointOffsets(text);
        foreach (var (token, offsets) in EncodeAligned(text, null))
        {
            var content = token.Text ?? _parts.Model.IdToToken(token.Id) ?? "";
            encoding.Add(token.Id, content, (codePoints[offsets.Start], codePoints[offsets.End]), special: false, typeId);
        }

        return encoding;
    }

    private TokenEncoding Finish(List<TokenEncoding> encodings, bool addSpecialTokens)
    {
        var whole = new TokenEncoding();
        foreach (var encoding in _parts.PostProcessor?.Process(encodings, addSpecialTokens) ?? encodings)
        {
            whole.Append(encoding);
        }

        return whole;
    }

    private static int[] CodePointOffsets(string text)
    {
        var offsets = new int[text.Length + 1];
        for (var i = 0; i < text.Length; i++)
        {
            var secondHalf = i > 0 && char.IsLowSurrogate(text[i]) && char.IsHighSurrogate(text[i - 1]);
            offsets[i + 1] = offsets[i] + (secondHalf ? 0 : 1);
        }

        return offsets;
    }

    // Configs name special tokens that some models do not have; such a token is none.
    private int? IdOf(string? token) => token is null ? null : TokenToId(token);
}

/// <summary>The steps of a tokenizer, in the order text goes through them.</summary>
internal sealed record TokenizerParts
{
    public required IReadOnlyList<AddedToken> AddedTokens { get; init; }

    public Normalizer? Normalizer { get; init; }

    public PreTokenizer? PreTokenizer { get; init; }

    public required TokenModel Model { get; init; }

    public PostProcessor? PostProcessor { get; init; }

    public Decoder? Decoder { get; init; }
}
