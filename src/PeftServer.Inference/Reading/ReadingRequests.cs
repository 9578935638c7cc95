using System.Text.Json;
using PeftServer.Engine.Reading;

namespace PeftServer.Inference.Reading;

/// <summary>What requests to models that read have in common, under vLLM's names.</summary>
internal abstract record ReadingRequestBody
{
    /// <summary>A base model or a fine-tuned one.</summary>
    public required string Model { get; init; }

    /// <summary>The task the texts are of, from 0, for adapters of methods that know several (POLY, MULTITASK_PROMPT_TUNING).</summary>
    public int? TaskId { get; init; }

    /// <summary>Texts that are longer lose their end; −1: down to what the model takes. Absent: a text that is too long is an error.</summary>
    public int? TruncatePromptTokens { get; init; }

    /// <summary>Taken and not used.</summary>
    public string? User { get; init; }
}

/// <summary>The body of <c>POST /v1/classify</c>: <c>input</c>, or a chat in <c>messages</c>.</summary>
internal record ClassifyRequest : ReadingRequestBody
{
    /// <summary>A text, a pair as <c>{"text", "text_pair"}</c>, or a list of them; token ids likewise.</summary>
    public JsonElement? Input { get; init; }

    /// <summary>A chat, put through the model's template: for reward models.</summary>
    public IReadOnlyList<JsonElement>? Messages { get; init; }

    /// <summary>Whether texts get the special tokens that the model knows around a text; yes if left out.</summary>
    public bool? AddSpecialTokens { get; init; }

    /// <summary>Whether the template shall open an answer behind the chat; no if left out.</summary>
    public bool? AddGenerationPrompt { get; init; }

    /// <summary>False: <c>probs</c> holds the raw scores.</summary>
    public bool? UseActivation { get; init; }
}

/// <summary>The body of <c>POST /pooling</c>: what the model says of texts, as numbers and nothing else.</summary>
internal sealed record PoolingRequest : ClassifyRequest
{
    /// <summary>embed, classify or token_classify: what the model does, which is what it does if left out.</summary>
    public string? Task { get; init; }

    /// <summary>float or base64 (little-endian float32); float if left out.</summary>
    public string? EncodingFormat { get; init; }
}

/// <summary>The body of <c>POST /v1/score</c>: one text against each of a list, or two lists of the same length.</summary>
internal sealed record ScoreRequest : ReadingRequestBody
{
    [System.Text.Json.Serialization.JsonPropertyName("text_1")]
    public Engine.OneOrMany<string>? Text1 { get; init; }

    [System.Text.Json.Serialization.JsonPropertyName("text_2")]
    public Engine.OneOrMany<string>? Text2 { get; init; }

    /// <summary>vLLM's other name of <c>text_1</c>.</summary>
    public Engine.OneOrMany<string>? Queries { get; init; }

    /// <summary>vLLM's other name of <c>text_2</c>.</summary>
    public Engine.OneOrMany<string>? Documents { get; init; }

    /// <summary>False: the raw scores.</summary>
    public bool? UseActivation { get; init; }
}

/// <summary>The body of <c>POST /v1/token_classification</c>, with the parameters of transformers' pipeline.</summary>
internal sealed record TagRequest : ReadingRequestBody
{
    /// <summary>A text or a list of them.</summary>
    public required Engine.OneOrMany<string> Input { get; init; }

    /// <summary>none, simple, first, average or max. First if left out: training teaches the first token of each word its tag.</summary>
    public AggregationStrategy? AggregationStrategy { get; init; }

    /// <summary>Tags that are not told; O if left out.</summary>
    public IReadOnlyList<string>? IgnoreLabels { get; init; }
}

/// <summary>The body of <c>POST /v1/question_answering</c>, with the parameters of transformers' pipeline.</summary>
internal sealed record AnswerRequest : ReadingRequestBody
{
    public required string Question { get; init; }

    /// <summary>The text that may hold the answer. A long one is read in windows that overlap.</summary>
    public required string Context { get; init; }

    /// <summary>Answers wanted, the best first; 1 if left out.</summary>
    public int? TopK { get; init; }

    /// <summary>Tokens of an answer at most; 15 if left out.</summary>
    public int? MaxAnswerLen { get; init; }

    /// <summary>Tokens that windows of a long text share; 128 if left out, and never more than a quarter of a window.</summary>
    public int? DocStride { get; init; }

    /// <summary>Whether "there is no answer" is an answer, as an empty text.</summary>
    public bool? HandleImpossibleAnswer { get; init; }
}

/// <summary>The body of <c>POST /v1/embeddings</c>: OpenAI's.</summary>
internal sealed record EmbeddingRequest : ReadingRequestBody
{
    /// <summary>A text or a list of them; token ids likewise.</summary>
    public required JsonElement Input { get; init; }

    /// <summary>float or base64 (little-endian float32); float if left out.</summary>
    public string? EncodingFormat { get; init; }

    /// <summary>Only the first so many numbers, for models that were trained for it; brought to length 1 again.</summary>
    public int? Dimensions { get; init; }
}
