using PeftServer.Engine.Adapters;
using PeftServer.Engine.Data;
using PeftServer.Engine.Models;
using PeftServer.Engine.Tokenizers;
using PeftServer.Engine.Training.Objectives;

namespace PeftServer.Engine.Training.Tasks;

/// <summary>Reads the files of a run into what its method learns from.</summary>
internal sealed class TrainingTasks(TrainingSpec spec, EventLog events, PretrainedModel model, Adapter adapter, IReadOnlyList<string> labels, TrainerControl control, Adapter? frozenAdapter = null)
{
    private readonly Tokenizer _tokenizer = Tokenizer.Load(spec.Model);

    /// <summary>Tokens of a row that are kept: virtual tokens before it take their part of what the model can.</summary>
    private int MaxLength => MethodData.LengthOf(model) is var length && length - adapter.VirtualTokens > 1
        ? MethodData.MaxLength(spec.Training, length - adapter.VirtualTokens)
        : throw new TrainingException($"peft.num_virtual_tokens: {adapter.VirtualTokens} virtual tokens leave no room in the {length} that the model takes. Use fewer.");

    private CausalLanguageModel Causal => (CausalLanguageModel)model;

    private ClassificationModel Reader => (ClassificationModel)model;

    /// <summary>
    /// The task of a file, which <paramref name="trains"/> or is evaluated only. Throws <see cref="TrainingException"/> where nothing can be
    /// learnt from it.
    /// </summary>
    public TrainingTask Read(string path, bool trains)
    {
        using var stream = File.OpenRead(path);
        var data = MethodData.Read(spec.Method, stream, _tokenizer, spec.Training, MaxLength, labels);
        Account(path, data.Summary);
        return data.Rows switch
        {
            TrainingData texts => Supervised(path, texts, spec.Method.Settings as SftSettings ?? Plain((PretrainingSettings)spec.Method.Settings), trains),
            PreferenceData answers when spec.Method.Settings is KtoSettings settings =>
                new JudgedTask([.. answers.Judged, .. PreferenceRow.ToJudged(answers.Pairs)], MaxLength, Causal, adapter, settings, frozenAdapter),
            PreferenceData answers when spec.Method.Settings is RewardSettings settings => new RewardTask(answers.Pairs, MaxLength, Reader, adapter, settings),
            PreferenceData answers => new PreferenceTask(answers.Pairs, MaxLength, Causal, adapter, spec.Method.Settings, frozenAdapter),
            PromptData prompts when spec.Method.Settings is GrpoSettings settings => new GrpoTask(
                prompts.Rows, new RolloutPlan(trains ? prompts.Rows.Count : Math.Max(prompts.Rows.Count, RolloutPlan.PromptsPerGeneration(spec.Training, settings)), spec.Training, settings), new RolloutWriter(_tokenizer, Stops(), Causal, adapter, settings, spec.EmbeddingModels), Causal, adapter, settings,
                () => control.Request is StopRequest.None, frozenAdapter),
            ClassData texts => new ClassificationTask(texts.Rows, Reader, adapter, (ClassificationSettings)spec.Method.Settings),
            TaggedData words => new TokenClassificationTask(words.Rows, labels, Reader, adapter, (TokenClassificationSettings)spec.Method.Settings),
            QuestionData questions => new QuestionTask(questions, Reader, adapter, (QuestionAnsweringSettings)spec.Method.Settings),
            Seq2SeqData pairs => new Seq2SeqTask(pairs.Rows, (Seq2SeqLanguageModel)model, adapter, (Seq2SeqSettings)spec.Method.Settings),
            AlikeData texts => new EmbeddingTask(texts.Rows, Reader, adapter, (EmbeddingSettings)spec.Method.Settings),
            var other => throw new InvalidOperationException($"No task for {other.GetType().Name}."),
        };
    }

    private static SftSettings Plain(PretrainingSettings settings) => new() { LabelSmoothingFactor = settings.LabelSmoothingFactor };

    private SupervisedTask Supervised(string path, TrainingData data, SftSettings settings, bool trains)
    {
        CheckTasks(path, data.Rows);
        return new SupervisedTask(Packed(data), trains ? Step(settings) : new AutogradStep(Causal, adapter, settings), Causal, adapter, settings);
    }

    private void CheckTasks(string path, IReadOnlyList<TrainingRow> rows)
    {
        if (spec.Peft is IKnowsTasks && rows.FirstOrDefault(row => IKnowsTasks.Fault(spec.Peft, row.Task) is not null) is { } wrong)
        {
            throw new TrainingException($"{Path.GetFileName(path)}, line {wrong.Line}, task_id: {IKnowsTasks.Fault(spec.Peft, wrong.Task)}");
        }
    }

    private ITrainingStep Step(SftSettings settings) =>
        TrainingSteps.Create(Causal, adapter, model.Device, spec.Training, spec.Peft, settings, message => events.Message(message));

    private IReadOnlyList<TrainingRow[]> Packed(TrainingData data)
    {
        var packed = SupervisedTask.RowsOf(data, spec, MaxLength);
        if (packed.Count != data.Rows.Count)
        {
            events.Message($"Packed {data.Rows.Count} rows into {packed.Count} of up to {SupervisedTask.RowLength(data, spec, MaxLength)} tokens.");
        }

        return packed;
    }

    private HashSet<int> Stops() => [.. AdapterCompanions.StopTokens(spec.Model), .. _tokenizer.EosTokenId is { } eos ? new[] { eos } : []];

    private void Account(string path, DataSummary summary)
    {
        events.Message(
            $"{Path.GetFileName(path)}: {summary.Rows} rows, {summary.Used} used, {summary.Cut} cut, {summary.Skipped} skipped; "
            + $"{summary.Tokens} tokens, {summary.TrainedTokens} of them trained.", summary.Skipped > 0 ? TrainingEventLevel.Warn : TrainingEventLevel.Info);
        if (summary.TrainedTokens == 0)
        {
            var reason = summary.Reasons.OrderByDescending(each => each.Value).Select(each => $" Most often: {each.Key}").FirstOrDefault();
            throw new TrainingException($"{Path.GetFileName(path)} has no token to learn from: {summary.Skipped} of {summary.Rows} rows were skipped.{reason}");
        }
    }
}
