using System.Text.Json;
using PeftServer.Engine.Tokenizers.ChatTemplates;
using PeftServer.Engine.Tokenizers.Legacy;
using PeftServer.Engine.Weights.Gguf;

namespace PeftServer.Engine.Tokenizers;

/// <summary>Finds a tokenizer in a model folder and reads what lies beside it.</summary>
internal static class TokenizerFolder
{
    public static Tokenizer Load(string folder)
    {
        if (GgufFile.Find(folder) is { } gguf && !File.Exists(Path.Combine(folder, "tokenizer.json")))
        {
            return GgufTokenizer.Load(gguf);
        }

        if (!Directory.Exists(folder))
        {
            throw new TokenizerException($"There is no folder {folder}. A tokenizer is loaded from the folder of its model.");
        }

        using var config = ReadJson(folder, "tokenizer_config.json");
        using var map = ReadJson(folder, "special_tokens_map.json");
        var special = new SpecialTokens();
        foreach (var file in new[] { config, map })
        {
            if (file is not null)
            {
                special.Read(file.RootElement);
            }
        }

        var parts = ReadParts(folder, config?.RootElement, special);
        if (config is not null)
        {
            parts = parts with { AddedTokens = WithDecoder(parts.AddedTokens, config.RootElement) };
        }

        using var added = ReadJson(folder, "added_tokens.json");
        if (added is not null)
        {
            parts = parts with { AddedTokens = WithOldList(parts.AddedTokens, added.RootElement, special) };
        }

        parts = parts with { AddedTokens = WithRoles(parts, special) };
        return new Tokenizer(parts, special, ReadTemplate(folder, config?.RootElement));
    }

    private static TokenizerParts ReadParts(string folder, JsonElement? config, SpecialTokens special)
    {
        using var file = ReadJson(folder, "tokenizer.json");
        if (file is not null)
        {
            return TokenizerJson.Read(file.RootElement);
        }

        var tokenizerClass = (config is { } c ? JsonParts.OptionalString(c, "tokenizer_class") : null) ?? ClassOf(folder);
        tokenizerClass = tokenizerClass.EndsWith("Fast", StringComparison.Ordinal) ? tokenizerClass[..^4] : tokenizerClass;
        try
        {
            return SentencePieceFolder.Files.Select(f => Path.Combine(folder, f)).FirstOrDefault(File.Exists) is { } model
                    ? SentencePieceFolder.Read(model, tokenizerClass, config, special)
                : File.Exists(Path.Combine(folder, "vocab.json")) && File.Exists(Path.Combine(folder, "merges.txt"))
                    ? VocabularyFolder.ReadMerges(folder, tokenizerClass, config, special)
                : File.Exists(Path.Combine(folder, "vocab.txt"))
                    ? VocabularyFolder.ReadWordPieces(folder, config, special)
                : throw new TokenizerException($"{folder} holds no tokenizer: no tokenizer.json, SentencePiece model, vocab.json with merges.txt, or vocab.txt.");
        }
        catch (JsonException e)
        {
            throw new TokenizerException($"vocab.json is not JSON: {e.Message}", e);
        }
    }

    /// <summary>The oldest folders: a token and its id, no flags.</summary>
    private static List<AddedToken> WithOldList(IReadOnlyList<AddedToken> tokens, JsonElement list, SpecialTokens special)
    {
        var known = tokens.Select(t => t.Content).ToHashSet(StringComparer.Ordinal);
        return
        [
            .. tokens,
            .. list.EnumerateObject().Where(e => e.Name.Length > 0 && !known.Contains(e.Name)).Select(e => new AddedToken(JsonParts.Int(list, e.Name), e.Name)
            {
                Special = special.Texts.Values.Contains(e.Name),
            }),
        ];
    }

    /// <summary>The class that transformers takes for the model's type; empty where it is not known.</summary>
    private static string ClassOf(string folder)
    {
        using var config = ReadJson(folder, "config.json");
        return (config is null ? null : JsonParts.OptionalString(config.RootElement, "model_type")) switch
        {
            "t5" => "T5Tokenizer",
            "mt5" => "MT5Tokenizer",
            "xlm-roberta" => "XLMRobertaTokenizer",
            "albert" => "AlbertTokenizer",
            "deberta-v2" => "DebertaV2Tokenizer",
            "llama" or "mistral" or "mixtral" => "LlamaTokenizer",
            "gemma" or "gemma2" or "gemma3_text" => "GemmaTokenizer",
            "roberta" => "RobertaTokenizer",
            "bart" => "BartTokenizer",
            "qwen2" or "qwen3" or "qwen3_moe" => "Qwen2Tokenizer",
            _ => "",
        };
    }

    /// <summary>A token with a role is special even where no list of added tokens names it.</summary>
    internal static List<AddedToken> WithRoles(TokenizerParts parts, SpecialTokens special)
    {
        var known = parts.AddedTokens.Select(t => t.Content).ToHashSet(StringComparer.Ordinal);
        return
        [
            .. parts.AddedTokens,
            .. special.Texts.Values.Distinct()
                .Where(t => t.Length > 0 && !known.Contains(t) && parts.Model.TokenToId(t) is not null)
                .Select(t => new AddedToken(parts.Model.TokenToId(t)!.Value, t) { Special = true }),
        ];
    }

    /// <summary>Older folders list added tokens in tokenizer_config.json alone.</summary>
    private static List<AddedToken> WithDecoder(IReadOnlyList<AddedToken> tokens, JsonElement config)
    {
        var known = tokens.Select(t => t.Content).ToHashSet(StringComparer.Ordinal);
        var all = tokens.ToList();
        if (config.TryGetProperty("added_tokens_decoder", out var decoder) && decoder.ValueKind is JsonValueKind.Object)
        {
            foreach (var entry in decoder.EnumerateObject())
            {
                if (!int.TryParse(entry.Name, out var id))
                {
                    throw new TokenizerException($"tokenizer_config.json: added_tokens_decoder has the key \"{entry.Name}\", which is no token id.");
                }

                var token = TokenizerJson.ReadAddedToken(entry.Value, id);
                if (known.Add(token.Content))
                {
                    all.Add(token);
                }
            }
        }

        return all;
    }

    private static ChatTemplate? ReadTemplate(string folder, JsonElement? config)
    {
        var path = Path.Combine(folder, "chat_template.jinja");
        if (File.Exists(path))
        {
            return ChatTemplate.Parse(File.ReadAllText(path));
        }

        if (config is not { } root || !root.TryGetProperty("chat_template", out var template))
        {
            return null;
        }

        return template.ValueKind switch
        {
            JsonValueKind.String => ChatTemplate.Parse(template.GetString()!),
            JsonValueKind.Array => ReadNamedTemplate(template),
            _ => null,
        };
    }

    /// <summary>Several templates, each with a name: "default" is the one for chats.</summary>
    private static ChatTemplate? ReadNamedTemplate(JsonElement templates)
    {
        foreach (var entry in templates.EnumerateArray())
        {
            if (entry.TryGetProperty("name", out var name) && name.ValueEquals("default")
                && entry.TryGetProperty("template", out var template) && template.ValueKind is JsonValueKind.String)
            {
                return ChatTemplate.Parse(template.GetString()!);
            }
        }

        return null;
    }

    private static JsonDocument? ReadJson(string folder, string name)
    {
        var path = Path.Combine(folder, name);
        if (!File.Exists(path))
        {
            return null;
        }

        try
        {
            using var stream = File.OpenRead(path);
            var document = JsonDocument.Parse(stream);
            return document.RootElement.ValueKind is JsonValueKind.Object
                ? document
                : throw new TokenizerException($"{name} is not a JSON object.");
        }
        catch (JsonException e)
        {
            throw new TokenizerException($"{name} is not JSON: {e.Message}", e);
        }
    }
}
