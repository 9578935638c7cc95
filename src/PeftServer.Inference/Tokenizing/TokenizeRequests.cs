using System.Text.Json;

namespace PeftServer.Inference.Tokenizing;

/// <summary>The body of <c>POST /tokenize</c>, as vLLM has it: a text in <c>prompt</c>, or a chat in <c>messages</c>.</summary>
internal sealed record TokenizeRequest
{
    /// <summary>A base model or a fine-tuned one.</summary>
    public required string Model { get; init; }

    public string? Prompt { get; init; }

    /// <summary>A chat, put through the model's template.</summary>
    public IReadOnlyList<JsonElement>? Messages { get; init; }

    /// <summary>Functions that the template may show to the model.</summary>
    public JsonElement? Tools { get; init; }

    /// <summary>Whether a text gets the special tokens that the model knows around one; yes if left out. A chat has its template's.</summary>
    public bool? AddSpecialTokens { get; init; }

    /// <summary>Whether the template shall open an answer behind the chat; yes if left out.</summary>
    public bool? AddGenerationPrompt { get; init; }

    /// <summary>Whether the tokens are wanted as the vocabulary writes them, too.</summary>
    public bool? ReturnTokenStrs { get; init; }
}

/// <summary>Tokens of a text, and how many the model takes.</summary>
internal sealed record TokenizeAnswer(int Count, int MaxModelLen, IReadOnlyList<int> Tokens, IReadOnlyList<string>? TokenStrs);

/// <summary>The body of <c>POST /detokenize</c>.</summary>
internal sealed record DetokenizeRequest
{
    /// <summary>A base model or a fine-tuned one.</summary>
    public required string Model { get; init; }

    public required IReadOnlyList<int> Tokens { get; init; }
}

/// <summary>What the tokens say, those that mark structure included.</summary>
internal sealed record DetokenizeAnswer(string Prompt);
