using System.Text.Json;
using PeftServer.Core.Http;
using PeftServer.Inference.Writing;

namespace PeftServer.Inference.Completions;

/// <summary>Texts between two others, for models that were trained to write them: their tokenizers have tokens for it.</summary>
internal static class FillInTheMiddle
{
    /// <summary>Tokens before the text, between it and what follows, and before the answer, as families of models have them.</summary>
    private static readonly (string Before, string Hole, string Answer)[] Families =
    [
        ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"), // StarCoder, Granite
        ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"), // Qwen, CodeGemma
        ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"), // DeepSeek
    ];

    /// <summary>The prompts for what stands between <paramref name="prompt"/>, a text or a list of them, and <paramref name="suffix"/>.</summary>
    public static JsonElement Prompt(JsonElement prompt, string suffix, Writer writer)
    {
        var tokenizer = writer.Served.Tokenizer;
        if (Families.FirstOrDefault(family => tokenizer.TokenToId(family.Before) is not null && tokenizer.TokenToId(family.Hole) is not null && tokenizer.TokenToId(family.Answer) is not null)
            is not ({ } before, { } hole, { } answer))
        {
            throw Fault("suffix", $"'{writer.Name}' has no tokens for what stands between two texts, so it was not trained for it. Leave 'suffix' out.");
        }

        return prompt.ValueKind switch
        {
            JsonValueKind.String => JsonSerializer.SerializeToElement(Between(prompt)),
            JsonValueKind.Array when prompt.EnumerateArray().All(item => item.ValueKind is JsonValueKind.String) => JsonSerializer.SerializeToElement(prompt.EnumerateArray().Select(Between)),
            _ => throw Fault("prompt", "With 'suffix', 'prompt' must be a text or a list of texts."),
        };

        string Between(JsonElement text) => $"{before}{text.GetString()}{hole}{suffix}{answer}";
    }

    private static ApiErrorException Fault(string field, string message) => new(ApiError.BadRequest(message, field, "unsupported_parameter"));
}
