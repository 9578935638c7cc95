using System.Text.Json;
using PeftServer.Engine.Tokenizers.Models;
using PeftServer.Engine.Tokenizers.PostProcessors;

namespace PeftServer.Engine.Tokenizers.Legacy;

/// <summary>The special tokens that classes of transformers put around texts.</summary>
internal static class Frames
{
    /// <summary><paramref name="before"/> A <paramref name="after"/>, then <paramref name="between"/> B <paramref name="after"/>.</summary>
    public static TemplatePostProcessor Of(TokenModel model, string[] before, string[] after, string[] between, int secondType = 0)
    {
        TemplatePart Text(int index, int type) => new(index, [], type);
        TemplatePart Special(string token, int type) => new(null, [(model.TokenToId(token) ?? throw Missing(token), token)], type);
        List<TemplatePart> single = [.. before.Select(t => Special(t, 0)), Text(0, 0), .. after.Select(t => Special(t, 0))];
        return new TemplatePostProcessor(
            single, [.. single, .. between.Select(t => Special(t, secondType)), Text(1, secondType), .. after.Select(t => Special(t, secondType))]);
    }

    /// <summary>The begin and end tokens as add_bos_token and add_eos_token say; null where both are off.</summary>
    public static PostProcessor? BosAndEos(TokenModel model, SpecialTokens special, JsonElement? config, bool addBos)
    {
        var bos = (config is { } c ? JsonParts.OptionalBool(c, "add_bos_token") : null) ?? addBos;
        var eos = (config is { } d ? JsonParts.OptionalBool(d, "add_eos_token") : null) ?? false;
        string[] before = bos && special.Bos is { } first ? [first] : [];
        string[] after = eos && special.Eos is { } last ? [last] : [];
        return before.Length + after.Length == 0 ? null : Of(model, before, after, before, secondType: 1);
    }

    private static TokenizerException Missing(string token) => new($"The tokenizer puts \"{token}\" around texts, and its vocabulary does not have it.");
}
