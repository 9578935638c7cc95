using System.Text.Json;
using static PeftServer.Engine.Tokenizers.JsonParts;

namespace PeftServer.Engine.Tokenizers.Models;

/// <summary>Reads the model of tokenizer.json. Old files do not say which it is; their fields do.</summary>
internal static class ModelReader
{
    public static TokenModel Read(JsonElement part) => (OptionalString(part, "type") ?? Guess(part)) switch
    {
        "BPE" => ReadBpe(part),
        "Unigram" => ReadUnigram(part),
        "WordPiece" => new WordPieceModel(
            Vocabulary.Read(Object(part, "vocab")),
            OptionalString(part, "unk_token") ?? "[UNK]",
            OptionalString(part, "continuing_subword_prefix") ?? "##",
            OptionalInt(part, "max_input_chars_per_word") ?? 100),
        "WordLevel" => new WordLevelModel(Vocabulary.Read(Object(part, "vocab")), OptionalString(part, "unk_token") ?? "<unk>"),
        var other => throw Unknown("model", other),
    };

    private static string Guess(JsonElement part) =>
        part.ValueKind is not JsonValueKind.Object ? throw new TokenizerException("tokenizer.json: model is not an object.")
        : Part(part, "merges") is not null ? "BPE"
        : Part(part, "vocab") is { ValueKind: JsonValueKind.Array } ? "Unigram"
        : Part(part, "continuing_subword_prefix") is not null ? "WordPiece"
        : "WordLevel";

    private static BpeModel ReadBpe(JsonElement part)
    {
        if (Part(part, "dropout") is { } dropout && (dropout.ValueKind is not JsonValueKind.Number || dropout.GetDouble() != 0))
        {
            throw new TokenizerException("tokenizer.json: model.dropout would give other tokens for the same text each time. Set it to null.");
        }

        return new BpeModel(Vocabulary.Read(Object(part, "vocab")), ReadMerges(part), new BpeOptions
        {
            UnkToken = OptionalString(part, "unk_token"),
            ContinuingSubwordPrefix = OptionalString(part, "continuing_subword_prefix") is { Length: > 0 } prefix ? prefix : null,
            EndOfWordSuffix = OptionalString(part, "end_of_word_suffix") is { Length: > 0 } suffix ? suffix : null,
            FuseUnk = Bool(part, "fuse_unk"),
            ByteFallback = Bool(part, "byte_fallback"),
            IgnoreMerges = Bool(part, "ignore_merges"),
        });
    }

    /// <summary>Merges are pairs, or in older files strings with one space.</summary>
    private static IEnumerable<(string Left, string Right)> ReadMerges(JsonElement model)
    {
        foreach (var merge in List(model, "merges"))
        {
            if (merge.ValueKind is JsonValueKind.Array && merge.GetArrayLength() == 2
                && merge[0].ValueKind is JsonValueKind.String && merge[1].ValueKind is JsonValueKind.String)
            {
                yield return (Text(merge[0]), Text(merge[1]));
            }
            else if (merge.ValueKind is JsonValueKind.String && Text(merge).Split(' ') is [var left, var right])
            {
                yield return (left, right);
            }
            else if (merge.ValueKind is not JsonValueKind.String || !Text(merge).StartsWith("#version", StringComparison.Ordinal))
            {
                throw new TokenizerException($"tokenizer.json: model.merges has {merge.GetRawText()}, which is not a pair of tokens.");
            }
        }
    }

    private static UnigramModel ReadUnigram(JsonElement part)
    {
        var vocabulary = new List<(string Token, double Score)>();
        foreach (var entry in List(part, "vocab"))
        {
            if (entry.ValueKind is not JsonValueKind.Array || entry.GetArrayLength() != 2 || entry[0].ValueKind is not JsonValueKind.String
                || entry[1].ValueKind is not JsonValueKind.Number)
            {
                throw new TokenizerException($"tokenizer.json: model.vocab has {entry.GetRawText()}, which is not a token and its score.");
            }

            vocabulary.Add((Text(entry[0]), entry[1].GetDouble()));
        }

        return new UnigramModel(vocabulary, OptionalInt(part, "unk_id"), Bool(part, "byte_fallback"));
    }
}
