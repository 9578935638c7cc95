using System.Text.Json.Serialization;

namespace PeftServer.Inference.Reading;

/// <summary>The answer of a model that reads: something about each text, in their order.</summary>
internal sealed record ReadingAnswer<T>(string Id, long Created, string Model, IReadOnlyList<T> Data, ReadingUsage Usage)
{
    public string Object { get; } = "list";
}

/// <summary>Tokens that were read; nothing is written.</summary>
internal sealed record ReadingUsage(int PromptTokens)
{
    public int TotalTokens => PromptTokens;

    public int CompletionTokens { get; }
}

/// <summary>A text's class, as vLLM says it.</summary>
/// <param name="Index">Which text.</param>
/// <param name="Label">The likeliest class.</param>
/// <param name="Probs">Probability of every class.</param>
/// <param name="Score">The raw score where there is but one: a reward model's reward.</param>
internal sealed record ClassifiedText(
    int Index, string Label, IReadOnlyList<double> Probs, [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] float? Score)
{
    public int NumClasses => Probs.Count;
}

/// <summary>How well a pair of texts goes together, as vLLM says it.</summary>
internal sealed record ScoredPair(int Index, double Score)
{
    public string Object { get; } = "score";
}

/// <summary>What was found in a text.</summary>
internal sealed record TaggedText(int Index, IReadOnlyList<TaggedSpan> Entities);

/// <summary>
/// Words of one kind, or without aggregation a token and its tag, as transformers' pipeline says it. <see cref="Start"/> and <see cref="End"/>
/// are places in the text, in code points.
/// </summary>
internal sealed record TaggedSpan
{
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? EntityGroup { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Entity { get; init; }

    public required double Score { get; init; }

    /// <summary>Number of the token, special ones counted.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public int? Index { get; init; }

    public required string Word { get; init; }

    public required int Start { get; init; }

    public required int End { get; init; }
}

/// <summary>An answer that stands in a text, from and to which code point; empty and 0 where there is none.</summary>
internal sealed record FoundAnswer(string Answer, double Score, int Start, int End);

/// <summary>A text as a vector: numbers, or their bytes in base64.</summary>
internal sealed record Embedding(int Index, [property: JsonPropertyName("embedding")] object Value)
{
    public string Object { get; } = "embedding";
}

/// <summary>A text as the numbers that the model gives for it: a row of them, for each token one, or their bytes in base64.</summary>
internal sealed record Pooled(int Index, object Data)
{
    public string Object { get; } = "pooling";
}
