using PeftServer.Engine.Data;
using PeftServer.Engine.Tokenizers;
using PeftServer.Engine.Training.Objectives;

namespace PeftServer.Engine.Training;

/// <summary>Reads a file for a method: the rows it learns from, and what became of every row. No tensors.</summary>
public static class MethodData
{
    /// <summary>Tokens that a row may have, for a model that takes <paramref name="modelMaxLength"/>.</summary>
    public static int MaxLength(TrainingArguments arguments, int modelMaxLength) => Math.Min(arguments.MaxLength ?? int.MaxValue, modelMaxLength);

    /// <summary>The classes of a run: those that its settings name, else those of its training file; null for methods without classes.</summary>
    public static IReadOnlyList<string>? Labels(TrainingMethod method, Stream trainingFile, CancellationToken cancellationToken = default) => method.Type switch
    {
        TrainingMethodType.Reward => ["reward"],
        TrainingMethodType.Classification or TrainingMethodType.TokenClassification => method.Labels ?? LabelSet.Read(trainingFile, method.Format!.Value, cancellationToken),
        _ => null,
    };

    /// <summary>Reads <paramref name="stream"/> for <paramref name="method"/>: a record of rows, and the account of them.</summary>
    public static (object Rows, DataSummary Summary) Read(
        TrainingMethod method, Stream stream, Tokenizer tokenizer, TrainingArguments arguments, int maxLength, IReadOnlyList<string>? labels,
        CancellationToken cancellationToken = default)
    {
        var options = new TrainingDataOptions { MaxLength = maxLength, Format = arguments.DatasetFormat ?? method.Format };
        return method.Settings switch
        {
            SftSettings => Told(TrainingData.Read(stream, tokenizer, options, cancellationToken), data => data.Summary),
            PretrainingSettings => Told(
                TrainingData.Read(stream, tokenizer, options with { MaxLength = int.MaxValue, AssistantOnlyLoss = false, CompletionOnlyLoss = false }, cancellationToken), data => data.Summary),
            RewardSettings => Told(
                PreferenceData.Read(stream, tokenizer, options with { CutsAnswers = false }, cancellationToken), data => data.Summary),
            DpoSettings or CpoSettings or OrpoSettings or KtoSettings => Told(PreferenceData.Read(stream, tokenizer, options, cancellationToken), data => Usable(method, data)),
            GrpoSettings => Told(PromptData.Read(stream, tokenizer, options, cancellationToken), data => data.Summary),
            ClassificationSettings => Told(ClassData.Read(stream, tokenizer, options, labels!, cancellationToken), data => data.Summary),
            TokenClassificationSettings => Told(TaggedData.Read(stream, tokenizer, options, labels!, cancellationToken), data => data.Summary),
            QuestionAnsweringSettings settings => Told(
                QuestionData.Read(stream, tokenizer, options, Math.Min(settings.DocStride, maxLength / 4), cancellationToken), data => data.Summary),
            Seq2SeqSettings settings => Told(
                Seq2SeqData.Read(stream, tokenizer, options, Math.Min(settings.MaxTargetLength ?? maxLength, maxLength), cancellationToken), data => data.Summary),
            EmbeddingSettings => Told(AlikeData.Read(stream, tokenizer, options, cancellationToken), data => data.Summary),
            var other => throw new InvalidOperationException($"No data for {other.GetType().Name}."),
        };
    }

    private static (object Rows, DataSummary Summary) Told<T>(T data, Func<T, DataSummary> summary)
        where T : notnull => (data, summary(data));

    // A file of judged answers says nothing to a method that compares them.
    private static DataSummary Usable(TrainingMethod method, PreferenceData data) => method.Type is TrainingMethodType.Kto || data.Pairs.Count > 0 ? data.Summary : data.Summary with
    {
        TrainedTokens = 0,
        Used = 0,
        Skipped = data.Summary.Rows,
        Reasons = data.Judged.Count == 0 ? data.Summary.Reasons : new Dictionary<string, long> { ["The row has completion and label; this method needs chosen and rejected."] = data.Judged.Count },
    };
}
