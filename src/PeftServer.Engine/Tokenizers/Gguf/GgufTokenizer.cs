using System.Text.Json;
using System.Text.Json.Nodes;
using PeftServer.Engine.Tokenizers.ChatTemplates;
using PeftServer.Engine.Tokenizers.Legacy;
using PeftServer.Engine.Weights;
using PeftServer.Engine.Weights.Gguf;

namespace PeftServer.Engine.Tokenizers;

/// <summary>The tokenizer and chat template that a GGUF file holds in its metadata.</summary>
internal static class GgufTokenizer
{
    private static readonly (string Key, string Role)[] Roles =
        [("bos", "bos_token"), ("eos", "eos_token"), ("unknown", "unk_token"), ("seperator", "sep_token"), ("padding", "pad_token"), ("cls", "cls_token"), ("mask", "mask_token")];

    public static Tokenizer Load(string path)
    {
        try
        {
            using var file = GgufFile.Open(path);
            return Read(file);
        }
        catch (CheckpointException e)
        {
            throw new TokenizerException(e.Message, e);
        }
    }

    private static Tokenizer Read(GgufFile file)
    {
        var tokens = List<string>(file, "tokens") ?? throw new TokenizerException("The GGUF file holds no tokenizer (tokenizer.ggml.tokens).");
        var types = List<long>(file, "token_type");
        if (types is not null && types.Count != tokens.Count)
        {
            throw new TokenizerException("tokenizer.ggml.token_type is not as long as tokenizer.ggml.tokens.");
        }

        var special = new SpecialTokens();
        foreach (var (key, role) in Roles)
        {
            if (Value(file, $"{key}_token_id") is long id && id >= 0 && id < tokens.Count)
            {
                special.Default(role, tokens[(int)id]);
            }
        }

        var parts = (Value(file, "model") as string) switch
        {
            "gpt2" => ReadByteLevel(file, tokens, types, special),
            "llama" => ReadSentencePieces(file, tokens, types, special),
            "t5" => ReadUnigram(file, tokens, types, special),
            var other => throw new TokenizerException($"tokenizer.ggml.model '{other}' is not supported. Supported: gpt2, llama, t5."),
        };
        parts = parts with { AddedTokens = TokenizerFolder.WithRoles(parts, special) };
        var template = file.Metadata.GetValueOrDefault("tokenizer.chat_template") as string;
        return new Tokenizer(parts, special, template is null ? null : ChatTemplate.Parse(template));
    }

    private static TokenizerParts ReadSentencePieces(GgufFile file, List<string> tokens, List<long>? types, SpecialTokens special)
    {
        var pieces = Pieces(file, tokens, types);
        var model = SentencePieceModel.OfPieces(pieces, Value(file, "add_space_prefix") as bool? ?? true);
        using var config = JsonDocument.Parse(new JsonObject
        {
            ["add_bos_token"] = Value(file, "add_bos_token") as bool? ?? true,
            ["add_eos_token"] = Value(file, "add_eos_token") as bool? ?? false,
        }.ToJsonString());
        return SentencePieceFolder.ReadBpe(model, "LlamaTokenizer", config.RootElement, special);
    }

    /// <summary>T5's: pieces by their probability, of text that a table has brought into its form.</summary>
    private static TokenizerParts ReadUnigram(GgufFile file, List<string> tokens, List<long>? types, SpecialTokens special)
    {
        var map = List<long>(file, "precompiled_charsmap")?.ConvertAll(one => (byte)one).ToArray() ?? [];
        var model = SentencePieceModel.OfPieces(Pieces(file, tokens, types), Value(file, "add_space_prefix") as bool? ?? true, map);
        using var config = JsonDocument.Parse("""{"extra_ids": 0}"""); // they are among the pieces
        var parts = SentencePieceFolder.ReadUnigram(model, "T5Tokenizer", config.RootElement, special);
        return (Value(file, "add_eos_token") as bool? ?? true) ? parts : parts with { PostProcessor = null };
    }

    private static List<(string Piece, double Score, PieceType Type)> Pieces(GgufFile file, List<string> tokens, List<long>? types)
    {
        var scores = List<double>(file, "scores");
        return scores is null || scores.Count == tokens.Count
            ? [.. tokens.Select((token, i) => (token, scores?[i] ?? 0, types is null ? PieceType.Normal : (PieceType)types[i]))]
            : throw new TokenizerException("tokenizer.ggml.scores is not as long as tokenizer.ggml.tokens.");
    }

    /// <summary>A byte-level BPE, written out as the <c>tokenizer.json</c> that it was converted from.</summary>
    private static TokenizerParts ReadByteLevel(GgufFile file, List<string> tokens, List<long>? types, SpecialTokens special)
    {
        var merges = List<string>(file, "merges") ?? throw new TokenizerException("The GGUF file has no tokenizer.ggml.merges.");
        var cut = GgufPreTokenizer.Of(Value(file, "pre") as string ?? "default");
        var vocabulary = new JsonObject();
        var added = new JsonArray();
        for (var i = 0; i < tokens.Count; i++)
        {
            vocabulary.TryAdd(tokens[i], i);
            if (types is not null && (PieceType)types[i] is PieceType.Control or PieceType.UserDefined)
            {
                added.Add(new JsonObject { ["id"] = i, ["content"] = tokens[i], ["special"] = (PieceType)types[i] is PieceType.Control });
            }
        }

        var root = new JsonObject
        {
            ["added_tokens"] = added,
            ["normalizer"] = cut.IsNormalized ? new JsonObject { ["type"] = "NFC" } : null,
            ["pre_tokenizer"] = cut.ToJson(),
            ["model"] = new JsonObject
            {
                ["type"] = "BPE",
                ["vocab"] = vocabulary,
                ["merges"] = new JsonArray([.. merges.Select(merge => (JsonNode)merge)]),
                ["ignore_merges"] = cut.IgnoresMerges,
            },
            ["decoder"] = new JsonObject { ["type"] = "ByteLevel" },
        };
        using var document = JsonDocument.Parse(root.ToJsonString());
        var parts = TokenizerJson.Read(document.RootElement);
        using var config = JsonDocument.Parse(new JsonObject
        {
            ["add_bos_token"] = Value(file, "add_bos_token") as bool? ?? cut.AddsBos,
            ["add_eos_token"] = Value(file, "add_eos_token") as bool? ?? false,
        }.ToJsonString());
        return parts with { PostProcessor = Frames.BosAndEos(parts.Model, special, config.RootElement, addBos: false) };
    }

    private static object? Value(GgufFile file, string key) => file.Metadata.GetValueOrDefault($"tokenizer.ggml.{key}");

    private static List<T>? List<T>(GgufFile file, string key) => Value(file, key) switch
    {
        null => null,
        List<T> list => list,
        _ => throw new TokenizerException($"tokenizer.ggml.{key} is not a list of {typeof(T).Name}."),
    };
}
