using PeftServer.Engine.Adapters;
using PeftServer.Engine.Data;
using PeftServer.Engine.Tokenizers.ChatTemplates;
using PeftServer.Engine.Training.Objectives;
using PeftServer.Engine.Training.Tasks;

namespace PeftServer.Engine.Training;

/// <summary>What goes through the model in a run, micro-batch by micro-batch, from its rows and settings alone: as <see cref="Tasks.TrainingTask"/> will have it.</summary>
internal sealed class RunShapes
{
    private readonly IReadOnlyList<BatchShape> _rows;
    private readonly TrainingSpec _spec;

    public RunShapes(TrainingSpec spec, object data, int maxLength, Adapter adapter)
    {
        _spec = spec;
        _rows = [.. Rows(spec, data, maxLength, adapter.PromptTargets.Count)];
        Plan = TrainingPlan.For(Math.Max(1, _rows.Count), spec.Training, spec.Method);
    }

    public TrainingPlan Plan { get; }

    /// <summary>Rows, as batches count them.</summary>
    public int Count => _rows.Count;

    /// <summary>The micro-batches of every step.</summary>
    public IEnumerable<BatchShape> MicroBatches() => Enumerable.Range(0, Plan.TotalSteps).SelectMany(step => Plan.Window(step)).Select(rows => Together(rows.Select(Row)));

    /// <summary>The longest rows together: what a run on a GPU tries first.</summary>
    public BatchShape Longest() => Together(_rows.OrderByDescending(row => row.TokenCount).Take(_spec.Training.PerDeviceTrainBatchSize));

    /// <summary>GRPO's windows name completions, the others' rows.</summary>
    private BatchShape Row(int row) => _rows[Plan is RolloutPlan rollouts ? rollouts.PromptOf(row) : row];

    private static BatchShape Together(IEnumerable<BatchShape> rows)
    {
        var all = rows.ToList();
        return new([.. all.SelectMany(row => row.Lengths)], all.Sum(row => row.Scored)) { Sources = [.. all.SelectMany(row => row.Sources)], FrozenPasses = all[0].FrozenPasses };
    }

    private static IEnumerable<BatchShape> Rows(TrainingSpec spec, object data, int maxLength, int promptTargets) => (data, spec.Method.Settings) switch
    {
        (TrainingData texts, _) => SupervisedTask.RowsOf(texts, spec, maxLength).Select(row =>
            new BatchShape([.. row.Select(document => document.InputIds.Length)], row.Sum(document => document.TrainedCount + promptTargets))),
        (PreferenceData answers, KtoSettings kto) => answers.Judged.Concat(PreferenceRow.ToJudged(answers.Pairs)).Select(row =>
            One(row.Completion(maxLength), kto.LossType is KtoLossType.Kto ? 3 : 1)),
        (PreferenceData answers, RewardSettings) => answers.Pairs.Select(pair => Pair(pair, maxLength) with { Scored = 2 }),
        (PreferenceData answers, OrpoSettings) => answers.Pairs.Select(pair => Pair(pair, maxLength) with
        {
            Scored = pair.Chosen(maxLength).Ids.Length - 1 + Scored(pair.Rejected(maxLength)),
        }),
        (PreferenceData answers, var settings) => answers.Pairs.Select(pair => Pair(pair, maxLength) with { FrozenPasses = settings is DpoSettings ? 1 : 0 }),
        (PromptData prompts, GrpoSettings grpo) => prompts.Rows.Select(prompt => new BatchShape([prompt.Ids.Length + grpo.MaxCompletionLength], grpo.MaxCompletionLength)
        {
            FrozenPasses = grpo.Beta > 0 ? 1 : 0,
        }),
        (ClassData texts, _) => texts.Rows.Select(text => new BatchShape([text.Ids.Length], 1)),
        (TaggedData words, _) => words.Rows.Select(sentence => new BatchShape([sentence.Ids.Length], sentence.Labels.Count(label => label != TaggedSequence.Ignored))),
        (QuestionData questions, _) => questions.Windows.Select(window => new BatchShape([window.Ids.Length], 1)),
        (Seq2SeqData pairs, _) => pairs.Rows.Select(pair => new BatchShape([pair.TargetIds.Length], pair.TargetIds.Length) { Sources = [pair.SourceIds.Length] }),
        (AlikeData texts, _) => texts.Rows.Select(group => new BatchShape([.. group.Texts.Select(text => text.Length)], 0)),
        _ => throw new InvalidOperationException($"No shapes for {data.GetType().Name}."),
    };

    private static BatchShape Pair(PreferenceRow pair, int maxLength)
    {
        var (chosen, rejected) = (pair.Chosen(maxLength), pair.Rejected(maxLength));
        return new([chosen.Ids.Length, rejected.Ids.Length], Scored(chosen) + Scored(rejected));
    }

    private static BatchShape One(TokenizedChat row, int frozenPasses) => new([row.Ids.Length], Scored(row)) { FrozenPasses = frozenPasses };

    /// <summary>Tokens that train, each scored from the one before it: the first has none.</summary>
    private static int Scored(TokenizedChat row) => row.Trained.Skip(1).Count(trained => trained);
}
