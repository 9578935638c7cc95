using System.Text.Json;

namespace PeftServer.Engine.Tokenizers;

/// <summary>The tokens with a role, by the role's name in tokenizer_config.json and special_tokens_map.json.</summary>
internal sealed class SpecialTokens
{
    private static readonly string[] Roles =
        ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

    private readonly Dictionary<string, string> _texts = new(StringComparer.Ordinal);

    public string? Bos => _texts.GetValueOrDefault("bos_token");

    public string? Eos => _texts.GetValueOrDefault("eos_token");

    public string? Pad => _texts.GetValueOrDefault("pad_token");

    public string? Unk => _texts.GetValueOrDefault("unk_token");

    public IReadOnlyDictionary<string, string> Texts => _texts;

    /// <summary>Takes the roles that <paramref name="config"/> names; a role that is there already keeps its token.</summary>
    public void Read(JsonElement config)
    {
        foreach (var role in Roles)
        {
            if (config.TryGetProperty(role, out var value) && TextOf(value) is { } text)
            {
                _texts.TryAdd(role, text);
            }
        }
    }

    /// <summary>Gives a role its token where no file names one.</summary>
    public void Default(string role, string token) => _texts.TryAdd(role, token);

    private static string? TextOf(JsonElement value) => value.ValueKind switch
    {
        JsonValueKind.String => value.GetString(),
        JsonValueKind.Object when value.TryGetProperty("content", out var content) && content.ValueKind is JsonValueKind.String => content.GetString(),
        _ => null,
    };
}
