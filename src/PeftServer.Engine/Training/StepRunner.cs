using System.Diagnostics;
using PeftServer.Engine.Adapters;
using PeftServer.Engine.Models;
using PeftServer.Engine.Training.Optimizers;
using PeftServer.Engine.Training.Tasks;

namespace PeftServer.Engine.Training;

/// <summary>
/// One optimizer step over one window of micro-batches. Where a micro-batch does not fit into memory, it and all later ones are split and the step is done again:
/// the window's weights do not depend on how it is cut, so the maths stays what it was. What cannot be split goes on with its activations computed again.
/// </summary>
internal sealed class StepRunner(
    TrainingPlan plan, TrainingTask task, Optimizer optimizer, Adapter adapter, TrainingArguments arguments, EventLog events, TrainerControl control)
{
    private readonly TrainingFlops _flops = new(adapter.Model, adapter);
    private int _rowsAtOnce = arguments.PerDeviceTrainBatchSize;
    private bool _runsAgain = arguments.GradientCheckpointing is true;

    /// <summary>Called before each micro-batch with its rows; tests have memory run out here.</summary>
    public Action<int>? BeforeMicroBatch { get; init; }

    /// <summary>The step; null when the run is to stop first.</summary>
    public StepResult? Run(int step)
    {
        using var scope = NewDisposeScope(); // every temporary of the step dies here
        var started = Stopwatch.GetTimestamp();

        // Forward and backward; what the micro-batches give adds up.
        if (Gradients(step) is not var (work, totals))
        {
            return null;
        }

        // Clip and step. The weights move here, so what fails here is not tried again.
        var norm = optimizer.ClipGradients(arguments.MaxGradNorm);
        var learningRate = plan.LearningRateAt(step);
        optimizer.Step(learningRate);
        adapter.AfterStep(step);
        task.AdapterChanged();

        var (values, gradientNorm) = totals.Read(norm); // the one GPU sync of the step
        return new StepResult(step + 1, values, learningRate, gradientNorm, work.Tokens, work.Flops, Stopwatch.GetElapsedTime(started));
    }

    /// <summary>The gradients of a step, by micro-batches that fit; null when the run is to stop first.</summary>
    private ((int Tokens, double Flops) Work, MetricTotals Totals)? Gradients(int step)
    {
        while (true)
        {
            try
            {
                using var dropout = new Generator(SeedOf(step));
                var totals = new MetricTotals();
                optimizer.ZeroGrad();
                if (Forward(Cut(plan.Window(step)), step, dropout, totals) is not { } work)
                {
                    return null;
                }

                // What the method itself wants of its weights, once a step.
                adapter.Regularization()?.backward();
                return (work, totals);
            }
            catch (Exception e) when (IsOutOfMemory(e))
            {
                Split(e, plan.Window(step).Max(rows => rows.Length));
            }
        }
    }

    /// <summary>Tries the longest rows, without a step, so that a batch that does not fit is found at the beginning and not in the night.</summary>
    public void TryLongest()
    {
        var longest = Enumerable.Range(0, task.Rows).OrderByDescending(task.Tokens).Take(arguments.PerDeviceTrainBatchSize).ToArray();
        while (true)
        {
            try
            {
                using var scope = NewDisposeScope();
                using var dropout = new Generator(SeedOf(0));
                Forward(Cut([longest]), 0, dropout, new MetricTotals());
                optimizer.ZeroGrad();
                return;
            }
            catch (Exception e) when (IsOutOfMemory(e))
            {
                optimizer.ZeroGrad();
                Split(e, longest.Length);
            }
        }
    }

    /// <summary>Adds up the micro-batches; gives their tokens and the operations they need, or null when the run is to stop.</summary>
    private (int Tokens, double Flops)? Forward(IReadOnlyList<int[]> rows, int step, Generator dropout, MetricTotals totals)
    {
        var window = task.Window(rows, SeedOf(step));
        for (var i = 0; i < window.Count; i++)
        {
            if (control.Request is not StopRequest.None)
            {
                return null;
            }

            BeforeMicroBatch?.Invoke(rows[Math.Min(i, rows.Count - 1)].Length);
            using var inner = NewDisposeScope(); // activations go before the next micro-batch comes
            using var checkpoints = GradientCheckpoints.Begin(_runsAgain);
            totals.Add(window[i].ForwardBackward(dropout));
        }

        return (window.Sum(batch => batch.Shape.TokenCount), window.Sum(batch => _flops.Of(batch.Shape)));
    }

    private IReadOnlyList<int[]> Cut(IReadOnlyList<int[]> window) =>
        window.All(rows => rows.Length <= _rowsAtOnce) ? window : [.. window.SelectMany(rows => rows.Chunk(_rowsAtOnce))];

    private void Split(Exception e, int rows)
    {
        var tried = Math.Min(rows, _rowsAtOnce);
        if ((tried == 1 || !task.CanSplit) && arguments.GradientCheckpointing is null && !_runsAgain && task.UsesAutograd)
        {
            _runsAgain = true;
            events.Message(
                $"A micro-batch of {tried} rows does not fit into memory and cannot be split; from here on activations are computed again on the way back (gradient_checkpointing). The step is the same, and takes about a third longer.", TrainingEventLevel.Warn);
            return;
        }

        RefuseSplit(e, tried, task.CanSplit, "A micro-batch", arguments.GradientCheckpointing is false && task.UsesAutograd ? "Leave gradient_checkpointing = false out, lower" : "Lower");
        _rowsAtOnce = (tried + 1) / 2;
        events.Message(
            $"A micro-batch of {tried} rows does not fit into memory; from here on it is {_rowsAtOnce}. The step is the same: its gradients are added up before the weights move.", TrainingEventLevel.Warn);
    }

    /// <summary>Throws where <paramref name="what"/>, of so many rows, cannot be made smaller; <paramref name="lower"/> begins the advice.</summary>
    internal static void RefuseSplit(Exception e, int rows, bool canSplit, string what, string lower = "Lower")
    {
        if (rows == 1)
        {
            throw new TrainingException($"A single row does not fit into memory. {lower} max_length, or take a smaller model. ({FirstLine(e)})");
        }

        if (!canSplit)
        {
            throw new TrainingException(
                $"{what} of {rows} rows does not fit into memory, and its rows are compared with each other, so it cannot be split. {lower} per_device_train_batch_size or max_length. ({FirstLine(e)})");
        }
    }

    /// <summary>Draws of a step follow from the run's seed and the step, so that a resumed run makes the same.</summary>
    private ulong SeedOf(int step) => new SeededRandom((ulong)arguments.Seed, (ulong)step + (1UL << 32)).Next() >> 1;

    /// <summary>libtorch says it in words; there is no type for it.</summary>
    internal static bool IsOutOfMemory(Exception e) => e is OutOfMemoryException || e.Message.Contains("out of memory", StringComparison.OrdinalIgnoreCase)
        || e.Message.Contains("can't allocate memory", StringComparison.OrdinalIgnoreCase)
        || e.Message.Contains("_STATUS_ALLOC_FAILED", StringComparison.Ordinal); // cuBLAS and cuDNN, of their own workspaces

    private static string FirstLine(Exception e) => e.Message.Split('\n')[0];
}

/// <summary>What one step was.</summary>
internal sealed record StepResult(
    int Step, IReadOnlyDictionary<string, double> Values, double LearningRate, double GradientNorm, int TokenCount, double Flops, TimeSpan Time)
{
    public double Loss => Values[MetricTotals.Loss];
}
