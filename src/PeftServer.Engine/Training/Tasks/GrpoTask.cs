using System.Text.Json;
using PeftServer.Engine.Adapters;
using PeftServer.Engine.Data;
using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Training.Objectives;

namespace PeftServer.Engine.Training.Tasks;

/// <summary>
/// Prompts that the policy answers itself: each gets a group of completions, graders reward them, and what is better than its group becomes likelier. A row of the data is
/// a prompt; what goes through the model at which step, and how often, is the business of the <see cref="RolloutPlan"/>.
/// </summary>
internal sealed class GrpoTask(
    IReadOnlyList<Prompt> prompts, RolloutPlan plan, RolloutWriter writer, CausalLanguageModel model, Adapter adapter, GrpoSettings settings, Func<bool> goesOn,
    Adapter? frozenAdapter = null) : TrainingTask
{
    private readonly List<Generation> _kept = [];

    public override int Rows => prompts.Count;

    public override int Tokens(int row) => prompts[row].Ids.Length + settings.MaxCompletionLength;

    public override IEnumerable<long> Lines(int row) => [prompts[plan.PromptOf(row)].Line];

    /// <summary>The generations that later steps learn from too. A resumed run cannot write them again: the policy has moved.</summary>
    public override JsonElement? Progress
    {
        get => plan.KeepsOldPolicy && _kept.Count > 0 ? JsonSerializer.SerializeToElement(_kept, PeftJson.Options) : null;
        set
        {
            _kept.Clear();
            _kept.AddRange(value?.Deserialize<Generation[]>(PeftJson.Options) ?? []);
        }
    }

    public override IReadOnlyList<MicroBatch> Window(IReadOnlyList<int[]> window, ulong seed)
    {
        var generations = Generations([.. window.SelectMany(slots => slots).Select(slot => plan.Completion(slot).Generation).Distinct()]);
        var parts = window.Select(slots => (Micro: plan.MicroBatchOf(slots[0]), Completions: slots.Select(slot => generations[plan.Completion(slot).Generation].Completions[plan.Completion(slot).Completion]).ToArray(),
            generations[plan.Completion(slots[0]).Generation].Told)).ToList();
        var micro = parts.GroupBy(part => part.Micro).ToDictionary(part => part.Key, part => (
            Rows: part.Sum(each => each.Completions.Length), Tokens: part.Sum(each => Targets(each.Completions))));
        var targets = generations.Values.Average(generation => (double)Targets(generation.Completions)) * micro.Count / plan.StepsPerGeneration;
        return
        [
            .. parts.Select(part => new MicroBatch(BatchShape.Of(Batch(part.Completions), frozenPasses: settings.Beta > 0 ? 1 : 0), dropout =>
            {
                using var scope = NewDisposeScope();
                var rows = (double)part.Completions.Length / micro[part.Micro].Rows / micro.Count;
                var tokens = (double)Targets(part.Completions) / Math.Max(1, micro[part.Micro].Tokens) / micro.Count;
                var result = Loss(part.Completions, new GrpoShare(Math.Max(1, targets), rows, tokens), dropout);
                GradientCheckpoints.Backward(result.Loss);
                return Told(result, part.Told, rows).MoveToOuterDisposeScope();
            })),
        ];
    }

    public override (ObjectiveResult Result, double Weight) Evaluate(int[] rows)
    {
        using var scope = NewDisposeScope();
        var generation = Write(0, rows, seed: (ulong)rows[0] + 1);
        var (targets, loss, metrics) = (Math.Max(1, Targets(generation.Completions)), zeros([], device: model.Device), new Dictionary<string, Tensor>());
        foreach (var part in generation.Completions.Chunk(plan.BatchSize))
        {
            var share = (double)part.Length / generation.Completions.Count;
            var result = Told(Loss(part, new GrpoShare(targets, share, (double)Targets(part) / targets), dropout: null), generation.Told, share);
            loss = loss.Plus(result.Loss);
            foreach (var (name, value) in result.Metrics)
            {
                metrics[name] = metrics.TryGetValue(name, out var sum) ? sum.Plus(value) : value;
            }
        }

        return (new ObjectiveResult(loss, metrics).MoveToOuterDisposeScope(), rows.Length);
    }

    public override void Dispose()
    {
        writer.Dispose();
        base.Dispose();
    }

    /// <summary>Metrics are means over the micro-batches; what rollouts tell is their generation's.</summary>
    private ObjectiveResult Told(ObjectiveResult result, Dictionary<string, double> told, double share)
    {
        var metrics = result.Metrics.ToDictionary(metric => metric.Key, metric => metric.Value.Times(share));
        foreach (var (name, value) in told)
        {
            metrics[name] = tensor((float)(value * share), device: model.Device);
        }

        return new ObjectiveResult(result.Loss.detach(), metrics);
    }

    private ObjectiveResult Loss(IReadOnlyList<RolloutRow> rows, GrpoShare share, Generator? dropout)
    {
        using var scope = NewDisposeScope();
        var tokens = Batch(rows);
        var reference = settings.Beta > 0 ? Frozen(frozenAdapter is null ? [] : [frozenAdapter], tokens) : null;
        var policy = TokenScores.Of(model, [adapter], tokens, dropout, settings.Temperature);
        var old = rows[0].OldLogProbs is null ? null : tensor(rows.SelectMany(row => row.OldLogProbs!).ToArray(), device: model.Device); // [m]
        return Grpo.Loss(policy, [.. rows.Select(row => row.Advantage)], old, reference, share, settings).MoveToOuterDisposeScope();
    }

    private Tensor Frozen(IReadOnlyList<Adapter> adapters, SftBatch tokens)
    {
        using var frozen = no_grad();
        return TokenScores.Of(model, adapters, tokens, dropout: null, settings.Temperature).LogProbs;
    }

    /// <summary>The generations of these numbers: kept ones, and those that are due, written by the policy as it is.</summary>
    private Dictionary<int, Generation> Generations(IReadOnlyList<int> numbers)
    {
        _kept.RemoveAll(generation => !numbers.Contains(generation.Number));
        var all = numbers.ToDictionary(number => number, number => _kept.Find(generation => generation.Number == number) ?? Write(number, plan.PromptsOf(number), plan.SeedOf(number)));
        if (goesOn()) // else answers broke off, and the step is not taken
        {
            _kept.AddRange(all.Values.Except(_kept).ToList());
        }

        return all;
    }

    private Generation Write(int number, IReadOnlyList<int> rows, ulong seed)
    {
        var (completions, told) = writer.Write([.. rows.Select(row => prompts[row])], seed, goesOn);
        return new Generation(number, plan.KeepsOldPolicy ? [.. completions.Chunk(plan.BatchSize).SelectMany(Remembered)] : completions, told);
    }

    /// <summary>Completions with what the policy that wrote them says of their tokens.</summary>
    private IEnumerable<RolloutRow> Remembered(RolloutRow[] rows)
    {
        using var scope = NewDisposeScope();
        var (said, at) = (Frozen([adapter], Batch(rows)).cpu().data<float>().ToArray(), 0);
        return [.. rows.Select(row => row with { OldLogProbs = said[at..(at += row.TrainedCount)] })];
    }

    private static SftBatch Batch(IEnumerable<RolloutRow> rows) => SftBatch.Of(rows.Select(row => row.ToTraining()));

    private static int Targets(IEnumerable<RolloutRow> rows) => rows.Sum(row => row.TrainedCount);

    /// <summary>Completions that were written at once.</summary>
    private sealed record Generation(int Number, IReadOnlyList<RolloutRow> Completions, Dictionary<string, double> Told);
}
