using System.Text.Json;
using PeftServer.Engine.Tokenizers.Decoders;
using PeftServer.Engine.Tokenizers.Models;
using PeftServer.Engine.Tokenizers.Normalizers;
using PeftServer.Engine.Tokenizers.PostProcessors;
using PeftServer.Engine.Tokenizers.PreTokenizers;

namespace PeftServer.Engine.Tokenizers;

/// <summary>Reads <c>tokenizer.json</c> as the tokenizers library serialises it.</summary>
internal static class TokenizerJson
{
    public static TokenizerParts Read(JsonElement root) => new()
    {
        AddedTokens = ReadAddedTokens(root),
        Normalizer = Part(root, "normalizer") is { } normalizer ? ReadNormalizer(normalizer) : null,
        PreTokenizer = Part(root, "pre_tokenizer") is { } preTokenizer ? ReadPreTokenizer(preTokenizer) : null,
        Model = ReadModel(Part(root, "model") ?? throw new TokenizerException("tokenizer.json has no model.")),
        PostProcessor = Part(root, "post_processor") is { } postProcessor ? ReadPostProcessor(postProcessor) : null,
        Decoder = Part(root, "decoder") is { } decoder ? ReadDecoder(decoder) : null,
    };

    public static AddedToken ReadAddedToken(JsonElement token, int id, string where) => new(id, String(token, "content", where))
    {
        SingleWord = Bool(token, "single_word"),
        Lstrip = Bool(token, "lstrip"),
        Rstrip = Bool(token, "rstrip"),
        Normalized = Bool(token, "normalized"),
        Special = Bool(token, "special"),
    };

    private static List<AddedToken> ReadAddedTokens(JsonElement root)
    {
        var tokens = new List<AddedToken>();
        if (root.TryGetProperty("added_tokens", out var list) && list.ValueKind is JsonValueKind.Array)
        {
            foreach (var token in list.EnumerateArray())
            {
                tokens.Add(ReadAddedToken(token, Int(token, "id", "added_tokens"), "added_tokens"));
            }
        }

        return tokens;
    }

    private static Normalizer ReadNormalizer(JsonElement part) => Type(part, "normalizer") switch
    {
        "Sequence" => new SequenceNormalizer([.. List(part, "normalizers").Select(ReadNormalizer)]),
        var other => throw Unknown("normalizer", other),
    };

    private static PreTokenizer ReadPreTokenizer(JsonElement part) => Type(part, "pre_tokenizer") switch
    {
        "Sequence" => new SequencePreTokenizer([.. List(part, "pretokenizers").Select(ReadPreTokenizer)]),
        "ByteLevel" => new ByteLevelPreTokenizer(Bool(part, "add_prefix_space", true), Bool(part, "use_regex", true)),
        "Digits" => new DigitsPreTokenizer(Bool(part, "individual_digits")),
        var other => throw Unknown("pre_tokenizer", other),
    };

    private static TokenModel ReadModel(JsonElement part) => Type(part, "model", orElse: "BPE") switch
    {
        "BPE" => new BpeModel(Vocabulary.Read(Object(part, "vocab", "model")), ReadMerges(part), new BpeOptions
        {
            UnkToken = OptionalString(part, "unk_token"),
            ContinuingSubwordPrefix = OptionalString(part, "continuing_subword_prefix"),
            EndOfWordSuffix = OptionalString(part, "end_of_word_suffix"),
            FuseUnk = Bool(part, "fuse_unk"),
            ByteFallback = Bool(part, "byte_fallback"),
            IgnoreMerges = Bool(part, "ignore_merges"),
        }),
        var other => throw Unknown("model", other),
    };

    /// <summary>Merges are pairs, or in older files strings with one space.</summary>
    private static IEnumerable<(string Left, string Right)> ReadMerges(JsonElement model)
    {
        foreach (var merge in List(model, "merges"))
        {
            if (merge.ValueKind is JsonValueKind.Array && merge.GetArrayLength() == 2
                && merge[0].ValueKind is JsonValueKind.String && merge[1].ValueKind is JsonValueKind.String)
            {
                yield return (merge[0].GetString()!, merge[1].GetString()!);
            }
            else if (merge.ValueKind is JsonValueKind.String && merge.GetString()!.Split(' ') is [var left, var right])
            {
                yield return (left, right);
            }
            else
            {
                throw new TokenizerException($"model.merges: {merge.GetRawText()} is not a pair of tokens.");
            }
        }
    }

    private static PostProcessor ReadPostProcessor(JsonElement part) => Type(part, "post_processor") switch
    {
        "Sequence" => new SequencePostProcessor([.. List(part, "processors").Select(ReadPostProcessor)]),
        "ByteLevel" => new ByteLevelPostProcessor(Bool(part, "add_prefix_space", true), Bool(part, "trim_offsets", true)),
        "TemplateProcessing" => ReadTemplateProcessing(part),
        var other => throw Unknown("post_processor", other),
    };

    private static TemplatePostProcessor ReadTemplateProcessing(JsonElement part)
    {
        var tokens = new Dictionary<string, List<(int Id, string Token)>>(StringComparer.Ordinal);
        foreach (var token in Object(part, "special_tokens", "post_processor").EnumerateObject())
        {
            var ids = List(token.Value, "ids").Select(id => id.GetInt32());
            tokens[token.Name] = [.. ids.Zip(List(token.Value, "tokens").Select(t => t.GetString() ?? ""))];
        }

        return new TemplatePostProcessor(ReadTemplate(part, "single", tokens), ReadTemplate(part, "pair", tokens));
    }

    private static List<TemplatePart> ReadTemplate(JsonElement part, string name, Dictionary<string, List<(int Id, string Token)>> tokens)
    {
        var template = new List<TemplatePart>();
        foreach (var piece in List(part, name))
        {
            if (piece.TryGetProperty("Sequence", out var sequence))
            {
                var second = String(sequence, "id", name) == "B";
                template.Add(new TemplatePart(second ? 1 : 0, [], Int(sequence, "type_id", name)));
            }
            else if (piece.TryGetProperty("SpecialToken", out var special))
            {
                var id = String(special, "id", name);
                template.Add(new TemplatePart(
                    null,
                    tokens.GetValueOrDefault(id) ?? throw new TokenizerException($"post_processor.{name} uses \"{id}\", which post_processor.special_tokens does not define."),
                    Int(special, "type_id", name)));
            }
            else
            {
                throw new TokenizerException($"post_processor.{name}: {piece.GetRawText()} is neither a Sequence nor a SpecialToken.");
            }
        }

        return template;
    }

    private static Decoder ReadDecoder(JsonElement part) => Type(part, "decoder") switch
    {
        "Sequence" => new SequenceDecoder([.. List(part, "decoders").Select(ReadDecoder)]),
        "ByteLevel" => new ByteLevelDecoder(),
        var other => throw Unknown("decoder", other),
    };

    private static JsonElement? Part(JsonElement root, string name) =>
        root.TryGetProperty(name, out var part) && part.ValueKind is JsonValueKind.Object ? part : null;

    private static string Type(JsonElement part, string where, string? orElse = null) =>
        part.ValueKind is JsonValueKind.Object && OptionalString(part, "type") is { } type ? type
        : orElse ?? throw new TokenizerException($"tokenizer.json: {where} has no type.");

    private static TokenizerException Unknown(string where, string type) =>
        new($"tokenizer.json: {where} is of type \"{type}\", which tokenizers 0.23 does not have.");

    private static JsonElement.ArrayEnumerator List(JsonElement part, string name) =>
        part.TryGetProperty(name, out var list) && list.ValueKind is JsonValueKind.Array
            ? list.EnumerateArray()
            : throw new TokenizerException($"tokenizer.json: {name} is missing or is not a list.");

    private static JsonElement Object(JsonElement part, string name, string where) =>
        part.TryGetProperty(name, out var value) && value.ValueKind is JsonValueKind.Object
            ? value
            : throw new TokenizerException($"tokenizer.json: {where}.{name} is missing or is not an object.");

    private static bool Bool(JsonElement part, string name, bool orElse = false)
    {
        if (!part.TryGetProperty(name, out var value) || value.ValueKind is JsonValueKind.Null)
        {
            return orElse;
        }

        return value.ValueKind is JsonValueKind.True or JsonValueKind.False
            ? value.GetBoolean()
            : throw new TokenizerException($"tokenizer.json: {name} is {value.GetRawText()}, not true or false.");
    }

    private static int Int(JsonElement part, string name, string where) =>
        part.TryGetProperty(name, out var value) && value.ValueKind is JsonValueKind.Number && value.TryGetInt32(out var number) && number >= 0
            ? number
            : throw new TokenizerException($"tokenizer.json: {where}.{name} is missing or is not a number from 0 up.");

    private static string String(JsonElement part, string name, string where) =>
        part.ValueKind is JsonValueKind.Object && OptionalString(part, name) is { } text
            ? text
            : throw new TokenizerException($"tokenizer.json: {where}.{name} is missing or is not a string.");

    private static string? OptionalString(JsonElement part, string name) =>
        part.TryGetProperty(name, out var value) && value.ValueKind is JsonValueKind.String ? value.GetString() : null;
}
