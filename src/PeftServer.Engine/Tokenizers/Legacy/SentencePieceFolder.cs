using System.Text.Json;
using PeftServer.Engine.Tokenizers.Decoders;
using PeftServer.Engine.Tokenizers.Models;
using PeftServer.Engine.Tokenizers.Normalizers;
using PeftServer.Engine.Tokenizers.Patterns;
using PeftServer.Engine.Tokenizers.PostProcessors;
using PeftServer.Engine.Tokenizers.PreTokenizers;

namespace PeftServer.Engine.Tokenizers.Legacy;

/// <summary>Folders with a SentencePiece model and no tokenizer.json, read as transformers converts them.</summary>
internal static class SentencePieceFolder
{
    public static readonly string[] Files = ["spiece.model", "tokenizer.model", "sentencepiece.bpe.model", "spm.model"];

    private const char Space = '\u2581';

    public static TokenizerParts Read(string path, string tokenizerClass, JsonElement? config, SpecialTokens special)
    {
        var file = SentencePieceModel.Read(File.ReadAllBytes(path));
        return file.IsBpe ? ReadBpe(file, tokenizerClass, config, special) : ReadUnigram(file, tokenizerClass, config, special);
    }

    public static TokenizerParts ReadUnigram(SentencePieceModel file, string tokenizerClass, JsonElement? config, SpecialTokens special)
    {
        var pieces = file.Pieces.Select(p => (p.Piece, p.Score)).ToList();
        var unkId = file.UnkId;
        if (tokenizerClass is "XLMRobertaTokenizer" or "CamembertTokenizer")
        {
            // fairseq numbers its own four tokens first
            pieces = [("<s>", 0), ("<pad>", 0), ("</s>", 0), ("<unk>", 0), .. pieces.Skip(3), ("<mask>", 0)];
            unkId = 3;
        }
        else if (tokenizerClass is "T5Tokenizer" or "MT5Tokenizer")
        {
            var extra = config is { } c && JsonParts.OptionalInt(c, "extra_ids") is { } count ? count : 100;
            pieces.AddRange(Enumerable.Range(0, extra).Reverse().Select(i => ($"<extra_id_{i}>", 0.0)));
        }

        var model = new UnigramModel(pieces, unkId, file.ByteFallback);
        List<Normalizer> normalizers = [new StripNormalizer(left: false, right: true), new ReplaceNormalizer(TextPattern.Regex(" {2,}"), Space.ToString())];
        if (file.CharsMap.Length > 0)
        {
            normalizers.Insert(0, new PrecompiledNormalizer(file.CharsMap));
        }

        var scheme = file.AddDummyPrefix ? PrependScheme.Always : PrependScheme.Never;
        return new TokenizerParts
        {
            AddedTokens = [.. AddedTokens(file, model, pieces.Count)],
            Normalizer = new SequenceNormalizer(normalizers),
            PreTokenizer = new MetaspacePreTokenizer(Space, scheme, split: true),
            Model = model,
            PostProcessor = Template(tokenizerClass, model, special),
            Decoder = new MetaspaceDecoder(Space, scheme),
        };
    }

    public static TokenizerParts ReadBpe(SentencePieceModel file, string tokenizerClass, JsonElement? config, SpecialTokens special)
    {
        var ids = new Dictionary<string, int>(StringComparer.Ordinal);
        for (var i = 0; i < file.Pieces.Count; i++)
        {
            ids.TryAdd(file.Pieces[i].Piece, i);
        }

        var model = new BpeModel(new Vocabulary(ids), Merges(file, ids), new BpeOptions
        {
            UnkToken = file.UnkId is { } unk ? file.Pieces[unk].Piece : null,
            FuseUnk = true,
            ByteFallback = file.ByteFallback,
        });
        var isGemma = tokenizerClass is "GemmaTokenizer";
        var prefixes = !isGemma && (config is { } c ? JsonParts.OptionalBool(c, "add_prefix_space") : null) is not false && file.AddDummyPrefix;
        var toSpaces = new ReplaceNormalizer(TextPattern.Literal(" "), Space.ToString());
        List<Decoder> decoders = [new ReplaceDecoder(TextPattern.Literal(Space.ToString()), " "), new ByteFallbackDecoder(), new FuseDecoder()];
        if (prefixes)
        {
            decoders.Add(new StripDecoder(" ", 1, 0));
        }

        return new TokenizerParts
        {
            AddedTokens = [.. AddedTokens(file, model, file.Pieces.Count)],
            Normalizer = prefixes ? new SequenceNormalizer([new PrependNormalizer(Space.ToString()), toSpaces]) : toSpaces,
            PreTokenizer = isGemma ? new PatternCutter(TextPattern.Literal(" "), SplitBehavior.MergedWithPrevious, invert: false) : null,
            Model = model,
            PostProcessor = Frames.BosAndEos(model, special, config, addBos: true),
            Decoder = new SequenceDecoder(decoders),
        };
    }

    /// <summary>A SentencePiece BPE stores scores, not merges: every way to put a piece together from two, best pieces first.</summary>
    private static IEnumerable<(string Left, string Right)> Merges(SentencePieceModel file, Dictionary<string, int> ids) =>
        file.Pieces.SelectMany(p => Splits(p.Piece, ids).OrderBy(s => ids[s.Left]).ThenBy(s => ids[s.Right]).Select(s => (s.Left, s.Right, p.Score)))
            .OrderByDescending(m => m.Score).ThenByDescending(m => Count(m.Left)).ThenByDescending(m => Count(m.Right))
            .Select(m => (m.Left, m.Right));

    private static IEnumerable<(string Left, string Right)> Splits(string piece, Dictionary<string, int> ids)
    {
        for (var i = 1; i < piece.Length; i++)
        {
            if (!char.IsLowSurrogate(piece[i]) && ids.ContainsKey(piece[..i]) && ids.ContainsKey(piece[i..]))
            {
                yield return (piece[..i], piece[i..]);
            }
        }
    }

    private static int Count(string text) => text.EnumerateRunes().Count();

    private static IEnumerable<AddedToken> AddedTokens(SentencePieceModel file, TokenModel model, int count)
    {
        foreach (var (piece, _, type) in file.Pieces)
        {
            if (type is PieceType.Control or PieceType.UserDefined && piece.Length > 0 && model.TokenToId(piece) is { } id)
            {
                yield return new AddedToken(id, piece) { Special = type is PieceType.Control };
            }
        }

        for (var id = file.Pieces.Count; id < count; id++)
        {
            if (model.IdToToken(id) is { Length: > 0 } extra && extra[0] == '<')
            {
                yield return new AddedToken(id, extra) { Special = true };
            }
        }
    }

    private static PostProcessor? Template(string tokenizerClass, TokenModel model, SpecialTokens special) => tokenizerClass switch
    {
        "T5Tokenizer" or "MT5Tokenizer" => Frames.Of(model, [], [special.Eos ?? "</s>"], []),
        "XLMRobertaTokenizer" or "CamembertTokenizer" => Frames.Of(model, [special.Bos ?? "<s>"], [special.Eos ?? "</s>"], [special.Eos ?? "</s>"]),
        "AlbertTokenizer" or "DebertaV2Tokenizer" => Frames.Of(model, ["[CLS]"], ["[SEP]"], []),
        "LlamaTokenizer" => Frames.BosAndEos(model, special, null, addBos: true),
        _ => null,
    };
}
