using System.ComponentModel.DataAnnotations;
using PeftServer.Engine.Training.Objectives;

namespace PeftServer.Engine.Training;

/// <summary>
/// Which completions go through the model at which step, counted as TRL counts them: a micro-batch is per_device_train_batch_size completions, steps_per_generation
/// micro-batches are written at once, a group of num_generations to a prompt, and learnt from num_iterations times. Prompts that fill no generation at the end of an
/// epoch are left to the next. A row of a window is a slot: micro-batch · batch size + place in it, micro-batches counted from the start of the run.
/// </summary>
public sealed class RolloutPlan : TrainingPlan
{
    private readonly int _prompts;
    private readonly int _group;
    private readonly int _generations;
    private readonly int _microPerEpoch;
    private readonly int _accumulation;
    private readonly ulong _seed;

    public RolloutPlan(int prompts, TrainingArguments arguments, GrpoSettings settings)
        : base(prompts, arguments, Math.Max(1, (int)Math.Ceiling(
            (double)(prompts / PromptsPerGeneration(arguments, settings)) * StepsOf(arguments, settings) * settings.NumIterations / arguments.GradientAccumulationSteps)))
    {
        BatchSize = arguments.PerDeviceTrainBatchSize;
        StepsPerGeneration = StepsOf(arguments, settings);
        Iterations = settings.NumIterations;
        _group = settings.NumGenerations;
        (_accumulation, _seed) = (arguments.GradientAccumulationSteps, (ulong)arguments.Seed);
        _prompts = PromptsPerGeneration(arguments, settings);
        _generations = prompts / _prompts;
        if (_generations == 0)
        {
            throw new TrainingException(
                $"The training file has {prompts} prompts that can be used, fewer than the {_prompts} of one generation "
                + $"(per_device_train_batch_size {BatchSize} × steps_per_generation {StepsPerGeneration} / num_generations {settings.NumGenerations}). Add rows, or lower these.");
        }

        _microPerEpoch = _generations * StepsPerGeneration * Iterations;
    }

    /// <summary>Completions of a micro-batch.</summary>
    public int BatchSize { get; }

    /// <summary>Micro-batches that are written at once.</summary>
    public int StepsPerGeneration { get; }

    /// <summary>How often each completion is learnt from.</summary>
    public int Iterations { get; }

    /// <summary>Micro-batches of a whole step.</summary>
    public int Accumulation => _accumulation;

    /// <summary>
    /// Whether the policy can move between writing a completion and learning from it, so that what it said then must be kept. Where steps take whole generations, once, it is
    /// the policy itself.
    /// </summary>
    public bool KeepsOldPolicy => _accumulation % (StepsPerGeneration * Iterations) != 0;

    /// <summary>What is contradictory between the counts: field and remedy.</summary>
    public static IEnumerable<ValidationResult> Faults(TrainingArguments arguments, GrpoSettings settings)
    {
        var batch = arguments.PerDeviceTrainBatchSize;
        if (settings.GenerationBatchSize is { } size && size % batch != 0)
        {
            yield return new($"generation_batch_size is {size}; it must be a multiple of per_device_train_batch_size, {batch}.", ["generation_batch_size"]);
        }
        else if (batch * StepsOf(arguments, settings) is var completions && completions % settings.NumGenerations != 0)
        {
            yield return new(
                $"num_generations is {settings.NumGenerations}, but {completions} completions are written at once (per_device_train_batch_size {batch} × steps_per_generation {StepsOf(arguments, settings)}), "
                + "which are no whole groups. Make them a multiple of num_generations.", ["num_generations"]);
        }
    }

    public override IReadOnlyList<int[]> Window(int step)
    {
        var (epoch, within) = Math.DivRem(step, StepsPerEpoch);
        var first = within * _accumulation;
        return [.. Enumerable.Range(first, Math.Min(_accumulation, _microPerEpoch - first)).Select(micro => Enumerable.Range(((epoch * _microPerEpoch) + micro) * BatchSize, BatchSize).ToArray())];
    }

    /// <summary>The micro-batch that a slot is in.</summary>
    public int MicroBatchOf(int slot) => slot / BatchSize;

    /// <summary>The generation that a slot's completion is of, and its number there: in an order of its own, so that a group is not learnt from in one piece.</summary>
    public (int Generation, int Completion) Completion(int slot)
    {
        var (micro, place) = Math.DivRem(slot, BatchSize);
        var generation = micro / (StepsPerGeneration * Iterations);
        return (generation, Shuffled(generation)[(micro % StepsPerGeneration * BatchSize) + place]);
    }

    /// <summary>Rows of the file whose prompts a generation answers.</summary>
    public int[] PromptsOf(int generation)
    {
        var (epoch, within) = Math.DivRem(generation, _generations);
        return Order(epoch)[(within * _prompts)..((within + 1) * _prompts)];
    }

    /// <summary>The row of the file whose prompt a slot's completion answers.</summary>
    public int PromptOf(int slot)
    {
        var (generation, completion) = Completion(slot);
        return PromptsOf(generation)[completion / _group];
    }

    /// <summary>What the completions of a generation are drawn from.</summary>
    public ulong SeedOf(int generation) => new SeededRandom(_seed, (ulong)generation + (1UL << 33)).Next();

    private (int Generation, int[] Places)? _shuffled;

    private int[] Shuffled(int generation)
    {
        if (_shuffled is { } known && known.Generation == generation)
        {
            return known.Places;
        }

        var places = Enumerable.Range(0, StepsPerGeneration * BatchSize).ToArray();
        var random = new SeededRandom(_seed, (ulong)generation + (1UL << 34));
        for (var i = places.Length - 1; i > 0; i--)
        {
            var j = random.Below(i + 1);
            (places[i], places[j]) = (places[j], places[i]);
        }

        _shuffled = (generation, places);
        return places;
    }

    private static int StepsOf(TrainingArguments arguments, GrpoSettings settings) =>
        settings.StepsPerGeneration ?? (settings.GenerationBatchSize is { } size ? Math.Max(1, size / arguments.PerDeviceTrainBatchSize) : arguments.GradientAccumulationSteps);

    /// <summary>Prompts that are answered at once.</summary>
    public static int PromptsPerGeneration(TrainingArguments arguments, GrpoSettings settings) =>
        Math.Max(1, arguments.PerDeviceTrainBatchSize * StepsOf(arguments, settings) / settings.NumGenerations);
}
