using System.ComponentModel.DataAnnotations;
using System.Text.Json.Serialization;

namespace PeftServer.Engine.Evaluation.Graders;

/// <summary>
/// Gives an answer a number, in OpenAI's terms. <c>input</c> and <c>reference</c> are templates: <c>{{ sample.output_text }}</c> is the answer,
/// <c>{{ item.NAME }}</c> a field of its row.
/// </summary>
[JsonPolymorphic(TypeDiscriminatorPropertyName = "type")]
[JsonDerivedType(typeof(StringCheckGrader), "string_check")]
[JsonDerivedType(typeof(TextSimilarityGrader), "text_similarity")]
[JsonDerivedType(typeof(MultiGrader), "multi")]
[JsonDerivedType(typeof(PythonGrader), "python")]
[JsonDerivedType(typeof(ModelGrader), "score_model")]
public abstract record Grader
{
    /// <summary>A name for people, and in formulas of <see cref="MultiGrader"/>.</summary>
    public string? Name { get; init; }

    /// <summary>The grade, usually from 0 to 1.</summary>
    public abstract double Grade(GradedSample sample);

    /// <summary>Names of the models that it embeds texts by.</summary>
    [JsonIgnore]
    public virtual IEnumerable<string> EmbeddingModels => [];

    /// <summary>What is wrong with the settings: field and remedy.</summary>
    public abstract IEnumerable<ValidationResult> Faults();

    private protected static ValidationResult Fault(string field, string message) => new(message, [field]);

    private protected static IEnumerable<ValidationResult> TemplateFaults(params ReadOnlySpan<(string Field, string Text)> templates)
    {
        var faults = new List<ValidationResult>();
        foreach (var (field, text) in templates)
        {
            if (GradedSample.FaultOf(text) is { } message)
            {
                faults.Add(Fault(field, message));
            }
        }

        return faults;
    }
}

/// <summary>1 where a comparison of two texts holds, else 0.</summary>
public sealed record StringCheckGrader : Grader
{
    public required string Input { get; init; }

    public required string Reference { get; init; }

    public required StringOperation Operation { get; init; }

    public override double Grade(GradedSample sample)
    {
        var (input, reference) = (sample.Fill(Input), sample.Fill(Reference));
        return Operation switch
        {
            StringOperation.Eq => input == reference,
            StringOperation.Ne => input != reference,
            StringOperation.Like => input.Contains(reference, StringComparison.Ordinal),
            _ => input.Contains(reference, StringComparison.OrdinalIgnoreCase),
        } ? 1 : 0;
    }

    public override IEnumerable<ValidationResult> Faults() => TemplateFaults(("input", Input), ("reference", Reference));
}

/// <summary>How two texts are compared: equal, not equal, the reference within the input, the same without case.</summary>
public enum StringOperation
{
    Eq,
    Ne,
    Like,
    Ilike,
}

/// <summary>How alike two texts are, from 0 to 1.</summary>
public sealed record TextSimilarityGrader : Grader
{
    private static readonly Rouge Rouge = new();

    public required string Input { get; init; }

    public required string Reference { get; init; }

    public required SimilarityMetric EvaluationMetric { get; init; }

    /// <summary>For cosine: the name of the model on this server whose embeddings are compared.</summary>
    public string? EmbeddingModel { get; init; }

    /// <summary>Part of OpenAI's evaluations: a grade of this and above passes. Rewards are the grade itself.</summary>
    [Range(0.0, 1.0)]
    public double? PassThreshold { get; init; }

    public override double Grade(GradedSample sample)
    {
        var (input, reference) = (sample.Fill(Input), sample.Fill(Reference));
        return EvaluationMetric switch
        {
            SimilarityMetric.FuzzyMatch => FuzzyMatch.Ratio(reference, input),
            SimilarityMetric.FuzzyTokenSet => FuzzyMatch.TokenSetRatio(reference, input),
            SimilarityMetric.FuzzyW => FuzzyMatch.WeightedRatio(reference, input),
            SimilarityMetric.Meteor => Meteor.Score(reference, input),
            SimilarityMetric.Cosine => (sample.Embeddings ?? throw new InvalidOperationException("Nothing here embeds texts.")).Cosine(EmbeddingModel!, reference, input),
            SimilarityMetric.Bleu => Bleu.Score(reference, input),
            SimilarityMetric.Gleu => Bleu.Gleu(reference, input),
            SimilarityMetric.RougeL => Rouge.L(reference, input).F1,
            _ => Rouge.N(reference, input, EvaluationMetric - SimilarityMetric.Rouge1 + 1).F1,
        };
    }

    public override IEnumerable<ValidationResult> Faults()
    {
        foreach (var fault in TemplateFaults(("input", Input), ("reference", Reference)))
        {
            yield return fault;
        }

        if (EvaluationMetric is SimilarityMetric.Cosine && string.IsNullOrEmpty(EmbeddingModel))
        {
            yield return Fault("embedding_model", "evaluation_metric cosine compares embeddings: name the model of this server that makes them in embedding_model.");
        }
        else if (EvaluationMetric is not SimilarityMetric.Cosine && EmbeddingModel is not null)
        {
            yield return Fault("embedding_model", "embedding_model is for evaluation_metric cosine alone. Leave it out.");
        }
    }

    public override IEnumerable<string> EmbeddingModels => EmbeddingModel is { } model ? [model] : [];
}

/// <summary>
/// OpenAI's measures of likeness, and two more of rapidfuzz. fuzzy_match is rapidfuzz's ratio, fuzzy_token_set its token_set_ratio, fuzzy_w its WRatio, each from 0 to 1.
/// </summary>
public enum SimilarityMetric
{
    FuzzyMatch,
    FuzzyTokenSet,
    FuzzyW,
    Bleu,
    Gleu,
    Meteor,
    Cosine,
    [JsonStringEnumMemberName("rouge_1")]
    Rouge1,
    [JsonStringEnumMemberName("rouge_2")]
    Rouge2,
    [JsonStringEnumMemberName("rouge_3")]
    Rouge3,
    [JsonStringEnumMemberName("rouge_4")]
    Rouge4,
    [JsonStringEnumMemberName("rouge_5")]
    Rouge5,
    RougeL,
}

/// <summary>A formula over other graders: <c>0.7 * exact + 0.3 * near</c>.</summary>
public sealed record MultiGrader : Grader
{
    /// <summary>Graders by the names that the formula uses.</summary>
    public required IReadOnlyDictionary<string, Grader> Graders { get; init; }

    /// <summary>+ − * / ^, parentheses, and min, max, abs, floor, ceil, exp, sqrt, log.</summary>
    public required string CalculateOutput { get; init; }

    public override double Grade(GradedSample sample) => GraderFormula.Parse(CalculateOutput).Value(name => Graders[name].Grade(sample));

    public override IEnumerable<string> EmbeddingModels => Graders.Values.SelectMany(grader => grader.EmbeddingModels);

    public override IEnumerable<ValidationResult> Faults()
    {
        foreach (var (name, grader) in Graders)
        {
            if (grader is MultiGrader)
            {
                yield return Fault($"graders.{name}", $"graders.{name} is a multi grader; one level is enough. Put its formula into calculate_output.");
            }

            foreach (var fault in grader.Faults())
            {
                yield return new ValidationResult(fault.ErrorMessage, fault.MemberNames.Select(field => $"graders.{name}.{field}"));
            }
        }

        GraderFormula? formula = null;
        string? wrong = null;
        try
        {
            formula = GraderFormula.Parse(CalculateOutput);
        }
        catch (FormatException e)
        {
            wrong = e.Message;
        }

        if (wrong is not null)
        {
            yield return Fault("calculate_output", $"calculate_output: {wrong}");
        }

        foreach (var name in formula?.Names.Where(name => !Graders.ContainsKey(name)) ?? [])
        {
            yield return Fault("calculate_output", $"calculate_output names '{name}', but graders has {string.Join(", ", Graders.Keys)}.");
        }
    }
}

/// <summary>OpenAI's grader in Python. Refused: a request brings no code to run here.</summary>
public sealed record PythonGrader : Grader
{
    public string? Source { get; init; }

    public string? ImageTag { get; init; }

    public override double Grade(GradedSample sample) => throw new NotSupportedException("Graders in Python are not run.");

    public override IEnumerable<ValidationResult> Faults() =>
        [Fault("type", "Graders of type python are refused: this server runs no code that comes with a request. Use string_check, text_similarity, or multi over them.")];
}

/// <summary>OpenAI's grader that asks a model. Not supported.</summary>
public sealed record ModelGrader : Grader
{
    public string? Model { get; init; }

    public System.Text.Json.JsonElement? Input { get; init; }

    public IReadOnlyList<double>? Range { get; init; }

    public System.Text.Json.JsonElement? SamplingParams { get; init; }

    public override double Grade(GradedSample sample) => throw new NotSupportedException("Graders that ask a model are not supported.");

    public override IEnumerable<ValidationResult> Faults() =>
        [Fault("type", "Graders of type score_model are not supported by this server. Use string_check, text_similarity, or multi over them.")];
}
