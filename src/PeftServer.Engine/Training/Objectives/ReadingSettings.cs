using System.ComponentModel.DataAnnotations;

namespace PeftServer.Engine.Training.Objectives;

/// <summary>Settings of continued pretraining: every token of every row is learnt.</summary>
public record PretrainingSettings
{
    /// <summary>Share of the target that is spread over the vocabulary.</summary>
    [Range(0.0, 0.999)]
    public double LabelSmoothingFactor { get; init; }
}

/// <summary>Settings of the classification of texts.</summary>
public record ClassificationSettings : IMethodSettings
{
    /// <summary>Names of the classes, by their number; absent: those of the training file, sorted.</summary>
    public IReadOnlyList<string>? Labels { get; init; }

    /// <summary>Share of the target that is spread over the classes.</summary>
    [Range(0.0, 0.999)]
    public double LabelSmoothingFactor { get; init; }

    public IEnumerable<ValidationResult> Contradictions() => LabelNames.Faults(Labels);
}

/// <summary>Settings of tagging words.</summary>
public record TokenClassificationSettings : IMethodSettings
{
    /// <summary>Names of the tags, by their number; absent: those of the training file, sorted.</summary>
    public IReadOnlyList<string>? Labels { get; init; }

    /// <summary>Share of the target that is spread over the tags.</summary>
    [Range(0.0, 0.999)]
    public double LabelSmoothingFactor { get; init; }

    public IEnumerable<ValidationResult> Contradictions() => LabelNames.Faults(Labels);
}

/// <summary>Settings of finding answers in texts.</summary>
public record QuestionAnsweringSettings
{
    /// <summary>Tokens by which the windows of a long text overlap.</summary>
    [Range(0, 100_000)]
    public int DocStride { get; init; } = 128;

    /// <summary>Tokens an answer may have.</summary>
    [Range(1, 100_000)]
    public int MaxAnswerLength { get; init; } = 30;

    /// <summary>By how much "no answer" must beat the best answer to be believed.</summary>
    [Range(-1e6, 1e6)]
    public double NullScoreDiffThreshold { get; init; }
}

/// <summary>Settings of models that read one text and write another.</summary>
public record Seq2SeqSettings
{
    /// <summary>Tokens of the written text; longer ones are cut. Absent: as those of the read one.</summary>
    [Range(1, 1_000_000)]
    public int? MaxTargetLength { get; init; }

    /// <summary>Share of the target that is spread over the vocabulary.</summary>
    [Range(0.0, 0.999)]
    public double LabelSmoothingFactor { get; init; }
}

internal static class LabelNames
{
    public static IEnumerable<ValidationResult> Faults(IReadOnlyList<string>? labels)
    {
        if (labels is { Count: < 2 } || labels?.Distinct(StringComparer.Ordinal).Count() != labels?.Count)
        {
            yield return new ValidationResult("labels must name at least two classes, each once.", ["labels"]);
        }
    }
}
