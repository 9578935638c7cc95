using System.Text.Json;
using PeftServer.Engine.Tokenizers.Decoders;
using PeftServer.Engine.Tokenizers.Models;
using PeftServer.Engine.Tokenizers.Normalizers;
using PeftServer.Engine.Tokenizers.Patterns;
using PeftServer.Engine.Tokenizers.PostProcessors;
using PeftServer.Engine.Tokenizers.PreTokenizers;

namespace PeftServer.Engine.Tokenizers.Legacy;

/// <summary>Folders with vocab.json and merges.txt, or vocab.txt, and no tokenizer.json, read as transformers converts them.</summary>
internal static class VocabularyFolder
{
    private const string Qwen2Pattern =
        @"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

    private static readonly string[] Gpt2Classes =
        ["GPT2Tokenizer", "CodeGenTokenizer", "GPTNeoXTokenizer", "GPTJTokenizer", "OPTTokenizer", "PhiTokenizer"];

    private static readonly string[] RobertaClasses = ["RobertaTokenizer", "BartTokenizer", "LongformerTokenizer", "LEDTokenizer", "MvpTokenizer"];

    /// <summary>Byte-level BPE: GPT-2's and its descendants.</summary>
    public static TokenizerParts ReadMerges(string folder, string tokenizerClass, JsonElement? config, SpecialTokens special)
    {
        using var vocab = JsonDocument.Parse(File.ReadAllBytes(Path.Combine(folder, "vocab.json")));
        var merges = File.ReadLines(Path.Combine(folder, "merges.txt"))
            .Where(line => line.Length > 0 && !line.StartsWith("#version", StringComparison.Ordinal))
            .Select(line => line.Split(' ') is [var left, var right]
                ? (left, right)
                : throw new TokenizerException($"merges.txt has the line \"{line}\", which is not two tokens."));
        var model = new BpeModel(Vocabulary.Read(vocab.RootElement), merges, new BpeOptions());
        var isRoberta = RobertaClasses.Contains(tokenizerClass);
        var isQwen2 = tokenizerClass is "Qwen2Tokenizer";
        if (!isRoberta && !isQwen2 && tokenizerClass.Length > 0 && !Gpt2Classes.Contains(tokenizerClass))
        {
            throw new TokenizerException($"{folder} holds vocab.json and merges.txt of a {tokenizerClass}, which is not known. Save the tokenizer with save_pretrained of transformers, which writes tokenizer.json.");
        }

        special.Default("eos_token", isRoberta ? "</s>" : "<|endoftext|>");
        special.Default("bos_token", isRoberta ? "<s>" : "<|endoftext|>");
        var prefix = (config is { } c ? JsonParts.OptionalBool(c, "add_prefix_space") : null) ?? false;
        var bytes = new ByteLevelPreTokenizer(prefix, useRegex: !isQwen2);
        return new TokenizerParts
        {
            AddedTokens = [],
            Normalizer = isQwen2 ? new UnicodeNormalizer(System.Text.NormalizationForm.FormC) : null,
            PreTokenizer = isQwen2
                ? new SequencePreTokenizer([new PatternCutter(TextPattern.Regex(Qwen2Pattern), SplitBehavior.Isolated, invert: false), bytes])
                : bytes,
            Model = model,
            PostProcessor = isRoberta ? Roberta(model, special, prefix)
                : isQwen2 ? new ByteLevelPostProcessor(addPrefixSpace: false, trimOffsets: false)
                : Frames.BosAndEos(model, special, config, addBos: false) ?? new ByteLevelPostProcessor(addPrefixSpace: true, trimOffsets: false),
            Decoder = new ByteLevelDecoder(),
        };
    }

    /// <summary>BERT's vocabulary, a token a line.</summary>
    public static TokenizerParts ReadWordPieces(string folder, JsonElement? config, SpecialTokens special)
    {
        var ids = new Dictionary<string, int>(StringComparer.Ordinal);
        foreach (var (line, id) in File.ReadLines(Path.Combine(folder, "vocab.txt")).Select((l, i) => (l, i)))
        {
            ids[line.TrimEnd()] = id;
        }

        foreach (var (role, token) in new[] { ("unk_token", "[UNK]"), ("sep_token", "[SEP]"), ("pad_token", "[PAD]"), ("cls_token", "[CLS]"), ("mask_token", "[MASK]") })
        {
            special.Default(role, token);
        }

        bool? Flag(string name) => config is { } c ? JsonParts.OptionalBool(c, name) : null;
        var model = new WordPieceModel(new Vocabulary(ids), special.Texts["unk_token"], "##", maxInputChars: 100);
        return new TokenizerParts
        {
            AddedTokens = [],
            Normalizer = new BertNormalizer(cleanText: true, Flag("tokenize_chinese_chars") ?? true, Flag("strip_accents"), Flag("do_lower_case") ?? true),
            PreTokenizer = new BertCutter(),
            Model = model,
            PostProcessor = Frames.Of(model, [special.Texts["cls_token"]], [special.Texts["sep_token"]], [], secondType: 1),
            Decoder = new WordPieceDecoder("##", cleanup: true),
        };
    }

    private static RobertaPostProcessor Roberta(BpeModel model, SpecialTokens special, bool prefix)
    {
        var (cls, sep) = (special.Texts.GetValueOrDefault("cls_token", special.Bos!), special.Texts.GetValueOrDefault("sep_token", special.Eos!));
        (int Id, string Token) Find(string token) => (model.TokenToId(token) ?? throw new TokenizerException($"vocab.json does not have the token \"{token}\"."), token);
        return new RobertaPostProcessor(Find(sep), Find(cls), trimOffsets: true, prefix);
    }
}
