using PeftServer.Engine.Training.Objectives;

namespace PeftServer.Engine.Training;

/// <summary>
/// Which rows go through the model at which step. It follows from the number of rows and the settings alone, so a resumed run
/// meets the same rows in the same order.
/// </summary>
public class TrainingPlan
{
    private readonly int _rows;
    private readonly TrainingArguments _arguments;

    public TrainingPlan(int rows, TrainingArguments arguments)
        : this(rows, arguments, (int)Math.Ceiling((double)rows / (arguments.PerDeviceTrainBatchSize * arguments.GradientAccumulationSteps)))
    {
    }

    private protected TrainingPlan(int rows, TrainingArguments arguments, int stepsPerEpoch)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(rows, 1);
        (_rows, _arguments) = (rows, arguments);
        StepsPerEpoch = stepsPerEpoch;
        TotalSteps = arguments.MaxSteps > 0 ? arguments.MaxSteps : Math.Max(1, (int)Math.Ceiling(arguments.NumTrainEpochs * StepsPerEpoch));
        WarmupSteps = LearningRate.WarmupSteps(arguments, TotalSteps);
    }

    /// <summary>The plan of a method: GRPO's rows are completions, the others' those of the file.</summary>
    public static TrainingPlan For(int rows, TrainingArguments arguments, TrainingMethod method) =>
        method.Settings is GrpoSettings settings ? new RolloutPlan(rows, arguments, settings) : new TrainingPlan(rows, arguments);

    public int StepsPerEpoch { get; }

    public int TotalSteps { get; }

    public int WarmupSteps { get; }

    private int RowsPerStep => _arguments.PerDeviceTrainBatchSize * _arguments.GradientAccumulationSteps;

    /// <summary>The micro-batches of <paramref name="step"/> (counted from 0), each a list of row numbers.</summary>
    public virtual IReadOnlyList<int[]> Window(int step)
    {
        var (epoch, within) = Math.DivRem(step, StepsPerEpoch);
        return [.. Order(epoch).Skip(within * RowsPerStep).Take(RowsPerStep).Chunk(_arguments.PerDeviceTrainBatchSize)];
    }

    public double LearningRateAt(int step) =>
        _arguments.LearningRate * LearningRate.Factor(_arguments.LrSchedulerType, step, WarmupSteps, TotalSteps, _arguments.LearningRate, _arguments.LrSchedulerKwargs);

    /// <summary>Whether <paramref name="step"/> is the last of its epoch, or of the run.</summary>
    public bool EndsEpoch(int step) => (step + 1) % StepsPerEpoch == 0 || step + 1 == TotalSteps;

    private (int Epoch, int[] Rows)? _order;

    /// <summary>The rows in the order of an epoch.</summary>
    private protected int[] Order(int epoch)
    {
        if (_order is { } known && known.Epoch == epoch)
        {
            return known.Rows;
        }

        var rows = Enumerable.Range(0, _rows).ToArray();
        var random = new SeededRandom((ulong)_arguments.Seed, (ulong)epoch);
        for (var i = rows.Length - 1; i > 0; i--)
        {
            var j = random.Below(i + 1);
            (rows[i], rows[j]) = (rows[j], rows[i]);
        }

        _order = (epoch, rows);
        return rows;
    }
}
