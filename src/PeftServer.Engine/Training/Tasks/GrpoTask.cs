using PeftServer.Engine.Adapters;
using PeftServer.Engine.Data;
using PeftServer.Engine.Evaluation.Graders;
using PeftServer.Engine.Generation;
using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Tokenizers;
using PeftServer.Engine.Training.Objectives;

namespace PeftServer.Engine.Training.Tasks;

/// <summary>
/// Prompts that the policy answers itself: each gets a group of completions, graders reward them, and what is better than its group becomes likelier. A row of the data
/// is a prompt; the completions of a step are learnt in micro-batches of as many completions as a micro-batch has prompts. The draws of a step follow from its seed.
/// </summary>
internal sealed class GrpoTask(
    IReadOnlyList<Prompt> prompts, Tokenizer tokenizer, IReadOnlySet<int> stops, CausalLanguageModel model, Adapter adapter, GrpoSettings settings, Func<bool> goesOn)
    : TrainingTask
{
    private readonly Rollouts _rollouts = new(model, adapter);

    public override int Rows => prompts.Count;

    public override int Tokens(int row) => prompts[row].Ids.Length + settings.MaxCompletionLength;

    public override IEnumerable<long> Lines(int row) => [prompts[row].Line];

    public override IReadOnlyList<MicroBatch> Window(IReadOnlyList<int[]> window, ulong seed)
    {
        var (completions, told) = Write([.. window.SelectMany(rows => rows)], seed);
        var batches = completions.Chunk(window.Max(rows => rows.Length)).ToList();
        var targets = completions.Sum(each => each.Row.TrainedCount);
        return
        [
            .. batches.Select(batch => new MicroBatch(BatchShape.Of(SftBatch.Of(batch.Select(each => each.Row)), frozenPasses: settings.Beta > 0 ? 1 : 0), dropout =>
            {
                using var scope = NewDisposeScope();
                var result = Loss(batch, (Math.Max(1, targets), batches.Count), dropout);
                result.Loss.backward();
                var share = 1.0 / batches.Count; // metrics are means over the micro-batches; what the rollouts tell is the step's
                var metrics = result.Metrics.ToDictionary(metric => metric.Key, metric => metric.Value.Times(share));
                foreach (var (name, value) in told)
                {
                    metrics[name] = tensor((float)(value * share), device: model.Device);
                }

                return new ObjectiveResult(result.Loss.detach(), metrics).MoveToOuterDisposeScope();
            })),
        ];
    }

    public override (ObjectiveResult Result, double Weight) Evaluate(int[] rows)
    {
        using var scope = NewDisposeScope();
        var (completions, told) = Write(rows, seed: (ulong)rows[0] + 1);
        var result = Loss(completions, (Math.Max(1, completions.Sum(each => each.Row.TrainedCount)), 1), dropout: null);
        var metrics = result.Metrics.Concat(told.Select(each => KeyValuePair.Create(each.Key, tensor((float)each.Value, device: model.Device)))).ToDictionary();
        return (new ObjectiveResult(result.Loss, metrics).MoveToOuterDisposeScope(), rows.Length);
    }

    private ObjectiveResult Loss(IReadOnlyList<Completion> batch, (long Targets, int MicroBatches) window, Generator? dropout)
    {
        using var scope = NewDisposeScope();
        var tokens = SftBatch.Of(batch.Select(each => each.Row));
        var reference = settings.Beta > 0 ? Reference(tokens) : null;
        var policy = TokenScores.Of(model, [adapter], tokens, dropout, settings.Temperature);
        return Grpo.Loss(policy, [.. batch.Select(each => each.Advantage)], oldLogProbs: null, reference, window, settings).MoveToOuterDisposeScope();
    }

    private Tensor Reference(SftBatch tokens)
    {
        using var frozen = no_grad();
        return TokenScores.Of(model, [], tokens, dropout: null, settings.Temperature).LogProbs;
    }

    /// <summary>Completions of some prompts with their advantages, those of a prompt together, and what is told about them.</summary>
    private (List<Completion> Completions, Dictionary<string, double> Told) Write(IReadOnlyList<int> rows, ulong seed)
    {
        var asked = rows.SelectMany(row => Enumerable.Repeat(prompts[row], settings.NumGenerations)).ToList();
        var draws = new SeededRandom(seed, 0);
        var sampling = asked.ConvertAll(prompt => new SamplingParameters
        {
            MaxTokens = Math.Max(1, Math.Min(settings.MaxCompletionLength, model.MaxLength - prompt.Ids.Length)),
            Temperature = settings.Temperature,
            TopP = settings.TopP,
            TopK = settings.TopK,
            Seed = draws.Next(),
            StopTokens = stops,
        });
        var written = _rollouts.Write([.. asked.Select(prompt => prompt.Ids)], sampling, goesOn);
        var rewards = asked.Zip(written, (prompt, rollout) => settings.Grader!.Grade(new GradedSample(tokenizer.Decode(rollout.Words), prompt.Item)))
            .Select(reward => double.IsFinite(reward) ? reward : 0).ToList();
        var advantages = GrpoAdvantages.Of(rewards, settings.NumGenerations, settings.ScaleRewards);
        var completions = asked.Zip(written, (prompt, rollout) => Row(prompt, rollout)).Zip(advantages, (row, advantage) => new Completion(row, advantage)).ToList();
        var groups = rewards.Chunk(settings.NumGenerations).ToList();
        return (completions, new Dictionary<string, double>
        {
            ["reward"] = rewards.Average(),
            ["reward_std"] = groups.Average(Deviation),
            ["frac_reward_zero_std"] = groups.Average(group => group.Distinct().Count() == 1 ? 1.0 : 0.0),
            ["completions/mean_length"] = written.Average(rollout => rollout.Ids.Length),
            ["completions/clipped_ratio"] = written.Average(rollout => rollout.IsTruncated ? 1.0 : 0.0),
        });
    }

    private TrainingRow Row(Prompt prompt, Rollout rollout)
    {
        var isLearnt = !(rollout.IsTruncated && settings.MaskTruncatedCompletions);
        return new TrainingRow([.. prompt.Ids, .. rollout.Ids], [.. new bool[prompt.Ids.Length], .. Enumerable.Repeat(isLearnt, rollout.Ids.Length)], prompt.Line);
    }

    private static double Deviation(double[] values)
    {
        var mean = values.Average();
        return Math.Sqrt(values.Sum(value => (value - mean) * (value - mean)) / Math.Max(1, values.Length - 1));
    }

    private sealed record Completion(TrainingRow Row, double Advantage);
}
