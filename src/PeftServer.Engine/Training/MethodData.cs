using PeftServer.Engine.Data;
using PeftServer.Engine.Models;
using PeftServer.Engine.Tokenizers;
using PeftServer.Engine.Training.Objectives;

namespace PeftServer.Engine.Training;

/// <summary>Reads a file for a method: the rows it learns from, and what became of every row. No tensors.</summary>
public static class MethodData
{
    /// <summary>Tokens that a row may have in the model of a folder under the method's head. Throws <see cref="Weights.CheckpointException"/> where it has no such head.</summary>
    public static int MaxLength(TrainingArguments arguments, string modelFolder, TrainingMethod method) =>
        MaxLength(arguments, LengthOf(PretrainedModel.Plan(modelFolder, method.Head)));

    /// <summary>Tokens that a sequence of <paramref name="model"/> may have.</summary>
    public static int LengthOf(PretrainedModel model) => model is LanguageModel writer ? writer.MaxLength : ((ClassificationModel)model).MaxLength;

    /// <summary>Tokens that a row may have, for a model that takes <paramref name="modelMaxLength"/>.</summary>
    public static int MaxLength(TrainingArguments arguments, int modelMaxLength) => Math.Min(arguments.MaxLength ?? int.MaxValue, modelMaxLength);

    /// <summary>
    /// The classes of a run: those of the adapter that it starts from, else those that its settings name, else those of its training file; null for methods without
    /// classes. Throws <see cref="TrainingException"/> where settings and adapter name others.
    /// </summary>
    public static IReadOnlyList<string>? Labels(
        TrainingMethod method, Stream trainingFile, IReadOnlyList<string>? starting = null, CancellationToken cancellationToken = default)
    {
        if (method.Type is not (TrainingMethodType.Classification or TrainingMethodType.TokenClassification))
        {
            return method.Type is TrainingMethodType.Reward ? ["reward"] : null;
        }

        if (starting is null)
        {
            return method.Labels ?? LabelSet.Read(trainingFile, method.Format!.Value, cancellationToken);
        }

        return method.Labels is not { } given || given.SequenceEqual(starting)
            ? starting
            : throw new TrainingException($"method.labels: the adapter that training starts from tells apart {string.Join(", ", starting)}, in this order. Leave labels out.");
    }

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

    /// <summary>The rows as people look at them: token ids, and which of them train. What is classified trains nothing of its text.</summary>
    public static IEnumerable<TrainingRow> Shown(object rows, int maxLength) => rows switch
    {
        TrainingData texts => texts.Rows,
        PreferenceData answers =>
        [
            .. answers.Pairs.SelectMany(pair => new[] { (pair.Chosen(maxLength), pair.Line), (pair.Rejected(maxLength), pair.Line) })
                .Concat(answers.Judged.Select(answer => (answer.Completion(maxLength), answer.Line)))
                .Select(row => new TrainingRow(row.Item1.Ids, row.Item1.Trained, row.Line)),
        ],
        PromptData prompts => prompts.Rows.Select(prompt => Untrained(prompt.Ids, prompt.Line)),
        ClassData texts => texts.Rows.Select(text => Untrained(text.Ids, text.Line)),
        TaggedData words => words.Rows.Select(sentence => new TrainingRow(sentence.Ids, [.. sentence.Labels.Select(label => label != TaggedSequence.Ignored)], sentence.Line)),
        QuestionData questions => questions.Windows.Select(window => new TrainingRow(
            window.Ids, [.. window.Ids.Select((_, i) => window.Start > 0 && i >= window.Start && i <= window.End)], questions.Questions[window.QuestionIndex].Line)),
        Seq2SeqData pairs => pairs.Rows.Select(pair => new TrainingRow(
            [.. pair.SourceIds, .. pair.TargetIds], [.. pair.SourceIds.Select(_ => false), .. pair.TargetIds.Select(_ => true)], pair.Line)),
        AlikeData texts => texts.Rows.SelectMany(group => group.Texts.Select(ids => Untrained(ids, group.Line))),
        _ => [],
    };

    private static TrainingRow Untrained(int[] ids, long line) => new(ids, new bool[ids.Length], line);

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
