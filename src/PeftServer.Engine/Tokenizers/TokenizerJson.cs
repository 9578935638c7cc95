using System.Text;
using System.Text.Json;
using PeftServer.Engine.Tokenizers.Decoders;
using PeftServer.Engine.Tokenizers.Models;
using PeftServer.Engine.Tokenizers.Normalizers;
using PeftServer.Engine.Tokenizers.PostProcessors;
using PeftServer.Engine.Tokenizers.PreTokenizers;
using PeftServer.Engine.Tokenizers.Unicode;
using static PeftServer.Engine.Tokenizers.JsonParts;

namespace PeftServer.Engine.Tokenizers;

/// <summary>Reads <c>tokenizer.json</c> as the tokenizers library serialises it.</summary>
internal static class TokenizerJson
{
    public static TokenizerParts Read(JsonElement root) => new()
    {
        AddedTokens = ReadAddedTokens(root),
        Normalizer = Part(root, "normalizer") is { } normalizer ? ReadNormalizer(normalizer) : null,
        PreTokenizer = Part(root, "pre_tokenizer") is { } preTokenizer ? ReadPreTokenizer(preTokenizer) : null,
        Model = ModelReader.Read(Part(root, "model") ?? throw new TokenizerException("tokenizer.json has no model.")),
        PostProcessor = Part(root, "post_processor") is { } postProcessor ? ReadPostProcessor(postProcessor) : null,
        Decoder = Part(root, "decoder") is { } decoder ? ReadDecoder(decoder) : null,
    };

    public static AddedToken ReadAddedToken(JsonElement token, int id) => new(id, String(token, "content"))
    {
        SingleWord = Bool(token, "single_word"),
        Lstrip = Bool(token, "lstrip"),
        Rstrip = Bool(token, "rstrip"),
        Normalized = Bool(token, "normalized"),
        Special = Bool(token, "special"),
    };

    private static List<AddedToken> ReadAddedTokens(JsonElement root) =>
        Part(root, "added_tokens") is null ? [] : [.. List(root, "added_tokens").Select(t => ReadAddedToken(t, Int(t, "id"))).Where(t => t.Content.Length > 0)];

    private static Normalizer ReadNormalizer(JsonElement part) => Type(part, "normalizer") switch
    {
        "Sequence" => new SequenceNormalizer([.. List(part, "normalizers").Select(ReadNormalizer)]),
        "NFC" => new UnicodeNormalizer(NormalizationForm.FormC),
        "NFD" => new UnicodeNormalizer(NormalizationForm.FormD),
        "NFKC" => new UnicodeNormalizer(NormalizationForm.FormKC),
        "NFKD" => new UnicodeNormalizer(NormalizationForm.FormKD),
        "Lowercase" => new LowercaseNormalizer(),
        "Nmt" => new NmtNormalizer(),
        "Strip" => new StripNormalizer(Bool(part, "strip_left", true), Bool(part, "strip_right", true)),
        "StripAccents" => new StripAccentsNormalizer(),
        "Prepend" => new PrependNormalizer(String(part, "prepend")),
        "Replace" => new ReplaceNormalizer(Pattern(part), String(part, "content")),
        "ByteLevel" => new ByteLevelNormalizer(),
        "BertNormalizer" => new BertNormalizer(
            Bool(part, "clean_text", true), Bool(part, "handle_chinese_chars", true), OptionalBool(part, "strip_accents"), Bool(part, "lowercase", true)),
        "Precompiled" => ReadPrecompiled(part),
        var other => throw Unknown("normalizer", other),
    };

    private static PrecompiledNormalizer ReadPrecompiled(JsonElement part)
    {
        try
        {
            return new PrecompiledNormalizer(Convert.FromBase64String(String(part, "precompiled_charsmap")));
        }
        catch (FormatException e)
        {
            throw new TokenizerException("tokenizer.json: precompiled_charsmap is not base64.", e);
        }
    }

    private static PreTokenizer ReadPreTokenizer(JsonElement part) => Type(part, "pre_tokenizer") switch
    {
        "Sequence" => new SequencePreTokenizer([.. List(part, "pretokenizers").Select(ReadPreTokenizer)]),
        "ByteLevel" => new ByteLevelPreTokenizer(Bool(part, "add_prefix_space", true), Bool(part, "use_regex", true)),
        "Metaspace" => new MetaspacePreTokenizer(Character(part, "replacement"), ReadPrependScheme(part), Bool(part, "split", true)),
        "Split" => new PatternCutter(Pattern(part), Splitting.Parse(String(part, "behavior")), Bool(part, "invert")),
        "Whitespace" => new WhitespaceCutter(),
        "WhitespaceSplit" => CharacterCutter.WhitespaceSplit,
        "BertPreTokenizer" => new BertCutter(),
        "CharDelimiterSplit" => ReadDelimiter(Character(part, "delimiter")),
        "Punctuation" => new CharacterCutter(UnicodeClasses.IsPunctuation, Splitting.Parse(OptionalString(part, "behavior") ?? "Isolated")),
        "Digits" => new CharacterCutter(
            c => Rune.IsValid(c) && Rune.IsNumber(new Rune(c)), Bool(part, "individual_digits") ? SplitBehavior.Isolated : SplitBehavior.Contiguous),
        "UnicodeScripts" => new ScriptCutter(),
        "FixedLength" => OptionalInt(part, "length") is 0
            ? throw new TokenizerException("tokenizer.json: length of FixedLength must be above 0.")
            : new FixedLengthCutter(OptionalInt(part, "length") ?? 5),
        var other => throw Unknown("pre_tokenizer", other),
    };

    private static CharacterCutter ReadDelimiter(char delimiter) => new(c => c == delimiter, SplitBehavior.Removed);

    /// <summary>Older files say add_prefix_space instead.</summary>
    private static PrependScheme ReadPrependScheme(JsonElement part) => OptionalString(part, "prepend_scheme") switch
    {
        "always" => PrependScheme.Always,
        "first" => PrependScheme.First,
        "never" => PrependScheme.Never,
        null => Bool(part, "add_prefix_space", true) ? PrependScheme.Always : PrependScheme.Never,
        var other => throw new TokenizerException($"tokenizer.json: prepend_scheme is \"{other}\". Use always, first or never."),
    };

    private static PostProcessor ReadPostProcessor(JsonElement part) => Type(part, "post_processor") switch
    {
        "Sequence" => new SequencePostProcessor([.. List(part, "processors").Select(ReadPostProcessor)]),
        "ByteLevel" => new ByteLevelPostProcessor(Bool(part, "add_prefix_space", true), Bool(part, "trim_offsets", true)),
        "TemplateProcessing" => ReadTemplateProcessing(part),
        "BertProcessing" => new BertPostProcessor(TokenPair(part, "sep"), TokenPair(part, "cls")),
        "RobertaProcessing" => new RobertaPostProcessor(
            TokenPair(part, "sep"), TokenPair(part, "cls"), Bool(part, "trim_offsets", true), Bool(part, "add_prefix_space", true)),
        var other => throw Unknown("post_processor", other),
    };

    private static TemplatePostProcessor ReadTemplateProcessing(JsonElement part)
    {
        var tokens = new Dictionary<string, List<(int Id, string Token)>>(StringComparer.Ordinal);
        foreach (var token in Object(part, "special_tokens").EnumerateObject())
        {
            var ids = List(token.Value, "ids").Select(id => id.ValueKind is JsonValueKind.Number && id.TryGetInt32(out var number)
                ? number
                : throw new TokenizerException($"tokenizer.json: post_processor.special_tokens.{token.Name}.ids must be token ids."));
            var names = List(token.Value, "tokens").Select(t => t.ValueKind is JsonValueKind.String ? Text(t) : "");
            tokens[token.Name] = [.. ids.Zip(names)];
        }

        return new TemplatePostProcessor(ReadTemplate(part, "single", tokens), ReadTemplate(part, "pair", tokens));
    }

    private static List<TemplatePart> ReadTemplate(JsonElement part, string name, Dictionary<string, List<(int Id, string Token)>> tokens)
    {
        var template = new List<TemplatePart>();
        foreach (var piece in List(part, name))
        {
            if (Part(piece, "Sequence") is { } sequence)
            {
                var second = String(sequence, "id") == "B";
                template.Add(second && name == "single"
                    ? throw new TokenizerException("tokenizer.json: post_processor.single uses the second text, which is not there.")
                    : new TemplatePart(second ? 1 : 0, [], Int(sequence, "type_id")));
            }
            else if (Part(piece, "SpecialToken") is { } special)
            {
                var id = String(special, "id");
                template.Add(new TemplatePart(
                    null,
                    tokens.GetValueOrDefault(id) ?? throw new TokenizerException($"tokenizer.json: post_processor.{name} uses \"{id}\", which special_tokens does not define."),
                    Int(special, "type_id")));
            }
            else
            {
                throw new TokenizerException($"tokenizer.json: post_processor.{name} has {piece.GetRawText()}, which is neither a Sequence nor a SpecialToken.");
            }
        }

        return template;
    }

    private static Decoders.Decoder ReadDecoder(JsonElement part) => Type(part, "decoder") switch
    {
        "Sequence" => new SequenceDecoder([.. List(part, "decoders").Select(ReadDecoder)]),
        "ByteLevel" => new ByteLevelDecoder(),
        "BPEDecoder" => new BpeDecoder(OptionalString(part, "suffix") ?? "</w>"),
        "WordPiece" => new WordPieceDecoder(OptionalString(part, "prefix") ?? "##", Bool(part, "cleanup", true)),
        "Metaspace" => new MetaspaceDecoder(Character(part, "replacement"), ReadPrependScheme(part)),
        "CTC" => new CtcDecoder(OptionalString(part, "pad_token") ?? "<pad>", OptionalString(part, "word_delimiter_token") ?? "|", Bool(part, "cleanup", true)),
        "Replace" => new ReplaceDecoder(Pattern(part), String(part, "content")),
        "ByteFallback" => new ByteFallbackDecoder(),
        "Fuse" => new FuseDecoder(),
        "Strip" => new StripDecoder(Character(part, "content").ToString(), Int(part, "start"), Int(part, "stop")),
        var other => throw Unknown("decoder", other),
    };
}
