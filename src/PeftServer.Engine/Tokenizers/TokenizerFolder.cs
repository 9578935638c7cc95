using System.Text.Json;
using PeftServer.Engine.Tokenizers.ChatTemplates;

namespace PeftServer.Engine.Tokenizers;

/// <summary>Finds a tokenizer in a model folder and reads what lies beside it.</summary>
internal static class TokenizerFolder
{
    public static Tokenizer Load(string folder)
    {
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

        var parts = ReadParts(folder);
        if (config is not null)
        {
            parts = parts with { AddedTokens = WithDecoder(parts.AddedTokens, config.RootElement) };
        }

        return new Tokenizer(parts, special, ReadTemplate(folder, config?.RootElement));
    }

    private static TokenizerParts ReadParts(string folder)
    {
        using var file = ReadJson(folder, "tokenizer.json")
            ?? throw new TokenizerException($"{folder} holds no tokenizer.json. Save the tokenizer with save_pretrained of transformers.");
        return TokenizerJson.Read(file.RootElement);
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
