using System.Diagnostics;
using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.Xlora;
using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Quantization;
using PeftServer.Engine.Training.Optimizers;
using PeftServer.Engine.Training.Tasks;

namespace PeftServer.Engine.Training;

/// <summary>
/// Runs a <see cref="TrainingSpec"/> in its run folder, from its last checkpoint where there is one. Everything it has to say goes
/// into the event log; what comes out is the folder <see cref="TrainingSpec.AdapterFolder"/>, complete once it is there.
/// </summary>
public sealed class Trainer(TrainingSpec spec, string runFolder, EventLog events, TrainerControl control, TimeProvider clock)
{
    private readonly TrainingArguments _arguments = spec.Training;

    /// <summary>
    /// Trains to the end, or until the control asks to stop. Throws for what the owner of the run must mend: a broken
    /// model, data without anything to learn, a loss that is no number (<see cref="TrainingException"/>).
    /// </summary>
    public TrainingOutcome Run()
    {
        Refuse();
        var device = Devices.Parse(spec.Device);
        var dtype = Devices.DefaultDtype(device, _arguments.Bf16);
        using var model = LoadModel(device, dtype);
        using var adapter = CreateAdapter(model);
        using var optimizer = OptimizerFactory.Create(adapter, _arguments);

        var tasks = new TrainingTasks(spec, events, model, adapter);
        using var task = tasks.Read(spec.TrainingFile, trains: true);
        using var validation = spec.ValidationFile is null ? null : tasks.Read(spec.ValidationFile, trains: false);

        var plan = new TrainingPlan(task.Rows, _arguments);
        adapter.BeginTraining(plan.TotalSteps);
        var progress = new TrainingProgress(plan, TrainingCheckpoint.Restore(runFolder, optimizer, adapter), clock);
        if (progress.StepsDone > 0)
        {
            events.Message($"Going on from the checkpoint after step {progress.StepsDone}.");
        }

        for (var step = progress.StepsDone; step < plan.TotalSteps; step++)
        {
            if (Step(step, plan, task, optimizer, adapter) is not { } result)
            {
                return Stop(step, optimizer, adapter);
            }

            progress.Add(result);
            Report(progress, plan, result, validation is not null && IsDue(step, _arguments.EvalSteps, plan) ? Evaluate(validation) : null);
            if (step + 1 < plan.TotalSteps && IsDue(step, _arguments.SaveSteps, plan))
            {
                TrainingCheckpoint.Save(runFolder, step + 1, optimizer, adapter);
                events.Write(TrainingEventType.Checkpoint, $"Checkpoint after step {step + 1}.", data: ("step", step + 1));
            }
        }

        Finish(adapter, progress);
        return TrainingOutcome.Succeeded;
    }

    /// <summary>One optimizer step over one window of micro-batches; null when the run is to stop first.</summary>
    private StepResult? Step(int step, TrainingPlan plan, TrainingTask task, Optimizer optimizer, Adapter adapter)
    {
        using var scope = NewDisposeScope(); // every temporary of the step dies here
        using var dropout = new Generator(SeedOf(step));
        var started = Stopwatch.GetTimestamp();
        var window = task.Window(plan.Window(step));

        // Forward and backward; what the micro-batches give adds up.
        optimizer.ZeroGrad();
        var totals = new MetricTotals();
        foreach (var batch in window)
        {
            if (control.Request is not StopRequest.None)
            {
                return null;
            }

            using var inner = NewDisposeScope(); // activations go before the next micro-batch comes
            totals.Add(batch.ForwardBackward(dropout));
        }

        // What the method itself wants of its weights, once a step.
        adapter.Regularization()?.backward();

        // Clip and step.
        var norm = optimizer.ClipGradients(_arguments.MaxGradNorm);
        var learningRate = plan.LearningRateAt(step);
        optimizer.Step(learningRate);
        adapter.AfterStep(step);
        task.AdapterChanged();

        var (values, gradientNorm) = totals.Read(norm); // the one GPU sync of the step
        var result = new StepResult(step + 1, values, learningRate, gradientNorm, window.Sum(batch => batch.TokenCount), Stopwatch.GetElapsedTime(started));
        return double.IsFinite(result.Loss) ? result : throw Diverged(result, plan, task);
    }

    private Dictionary<string, double> Evaluate(TrainingTask task)
    {
        using var frozen = no_grad();
        var (sums, total) = (new Dictionary<string, double>(), 0.0);
        foreach (var rows in Enumerable.Range(0, task.Rows).Chunk(_arguments.PerDeviceTrainBatchSize))
        {
            using var scope = NewDisposeScope();
            var (result, weight) = task.Evaluate(rows);
            foreach (var (name, value) in result.Metrics.Append(new(MetricTotals.Loss, result.Loss)))
            {
                sums[name] = sums.GetValueOrDefault(name) + (weight * value.item<float>());
            }

            total += weight;
            if (control.Request is StopRequest.Cancel)
            {
                break;
            }
        }

        return sums.ToDictionary(sum => sum.Key, sum => sum.Value / total);
    }

    private void Report(TrainingProgress progress, TrainingPlan plan, StepResult result, Dictionary<string, double>? evaluated)
    {
        if (evaluated is null && result.Step % _arguments.LoggingSteps != 0 && result.Step != plan.TotalSteps)
        {
            return;
        }

        List<(string, object)> data =
        [
            ("step", result.Step), ("total_steps", plan.TotalSteps), ("epoch", Math.Round((double)result.Step / plan.StepsPerEpoch, 4)),
            .. result.Values.Select(value => ($"train_{value.Key}", (object)value.Value)), ("learning_rate", result.LearningRate),
            ("grad_norm", result.GradientNorm), ("tokens", progress.Tokens), ("tokens_per_second", progress.TokensPerSecond),
            ("eta_seconds", progress.SecondsLeft),
        ];
        data.AddRange((evaluated ?? []).Select(value => ($"valid_{value.Key}", (object)value.Value)));
        var valid = evaluated is null ? "" : FormattableString.Invariant($", validation loss={evaluated[MetricTotals.Loss]:F4}");
        events.Write(
            TrainingEventType.Metrics,
            FormattableString.Invariant($"Step {result.Step}/{plan.TotalSteps}: training loss={result.Loss:F4}{valid}"), data: data);
    }

    private void Finish(Adapter adapter, TrainingProgress progress)
    {
        adapter.SetTraining(false);
        var folder = Path.Combine(runFolder, TrainingSpec.AdapterFolder);
        var temporary = folder + ".tmp";
        if (Directory.Exists(temporary))
        {
            Directory.Delete(temporary, recursive: true);
        }

        var portable = adapter.Portable();
        AdapterFile.Save(portable, temporary, spec.ModelName);
        if (portable != adapter)
        {
            portable.Dispose();
        }

        AdapterCompanions.Write(spec.Model, temporary);
        if (!Directory.Exists(folder))
        {
            Directory.Move(temporary, folder);
        }

        events.Write(
            TrainingEventType.Succeeded, $"Trained {progress.StepsDone} steps on {progress.Tokens} tokens.",
            data: [("trained_tokens", progress.Tokens), ("adapter", TrainingSpec.AdapterFolder)]);
    }

    private TrainingOutcome Stop(int stepsDone, Optimizer optimizer, Adapter adapter)
    {
        if (control.Request is StopRequest.Cancel)
        {
            events.Write(TrainingEventType.Cancelled, $"Cancelled after step {stepsDone}.");
            return TrainingOutcome.Cancelled;
        }

        TrainingCheckpoint.Save(runFolder, stepsDone, optimizer, adapter);
        events.Write(TrainingEventType.Checkpoint, $"Checkpoint after step {stepsDone}.", data: ("step", stepsDone));
        if (control.Request is StopRequest.Abandon)
        {
            return TrainingOutcome.Abandoned;
        }

        events.Write(TrainingEventType.Paused, $"Paused after step {stepsDone}.");
        return TrainingOutcome.Paused;
    }

    private void Refuse()
    {
        if (_arguments.Faults().Concat(spec.Peft.Faults()).Concat(spec.Method.Faults()).FirstOrDefault() is { } fault)
        {
            throw new TrainingException($"{string.Join(", ", fault.MemberNames)}: {fault.ErrorMessage}");
        }
    }

    private CausalLanguageModel LoadModel(Device device, ScalarType dtype)
    {
        var packed = _arguments.Quantization is BaseQuantization.None ? "" : $", its matrices in {_arguments.Quantization.ToString().ToLowerInvariant()}";
        events.Message($"Loading {spec.ModelName} onto {device} as {dtype.ToString().ToLowerInvariant()}{packed}.");
        return PretrainedModel.Load(spec.Model, device, dtype, quantization: _arguments.Quantization) as CausalLanguageModel
            ?? throw new TrainingException($"{spec.ModelName} is no causal language model; fine-tuning on text needs one.");
    }

    private Adapter CreateAdapter(CausalLanguageModel model)
    {
        var peft = spec.Peft is XloraConfig mixture ? mixture with { ExpertFolder = spec.Experts } : spec.Peft;
        var adapter = peft.NeedsCalibration ? Calibrated(peft, model) : peft.CreateAdapter(model);
        adapter.Initialize(_arguments.Seed);
        adapter.SetTraining(true);
        events.Message(adapter.TrainableSummary);
        return adapter;
    }

    /// <summary>An adapter that starts from what the model makes of the training file.</summary>
    private Adapter Calibrated(AdapterConfig peft, CausalLanguageModel model)
    {
        var data = CalibrationRows.Read(spec, model);
        events.Message($"Running up to {data.Batches.Sum(batch => batch.Count)} rows of {Path.GetFileName(spec.TrainingFile)} through the model to start the adapter.");
        return peft.CreateCalibrated(model, data);
    }

    /// <summary>Draws of a step follow from the run's seed and the step, so that a resumed run makes the same.</summary>
    private ulong SeedOf(int step) => new SeededRandom((ulong)_arguments.Seed, (ulong)step + (1UL << 32)).Next() >> 1;

    private static bool IsDue(int step, int? every, TrainingPlan plan) =>
        every is { } steps ? (step + 1) % steps == 0 || step + 1 == plan.TotalSteps : plan.EndsEpoch(step);

    private static TrainingException Diverged(StepResult result, TrainingPlan plan, TrainingTask task)
    {
        var lines = string.Join(", ", plan.Window(result.Step - 1).SelectMany(window => window).SelectMany(task.Lines).Order().Take(20));
        return new TrainingException(FormattableString.Invariant(
            $"The loss of step {result.Step} is {result.Loss} at learning rate {result.LearningRate:G3} (gradient norm {result.GradientNorm:G3}). Its rows are lines {lines}. Lower learning_rate or add warm-up."));
    }
}

/// <summary>How a run ended.</summary>
public enum TrainingOutcome
{
    Succeeded,
    Cancelled,
    Paused,
    Abandoned,
}

/// <summary>A run cannot go on; the message is for its owner.</summary>
public sealed class TrainingException(string message) : Exception(message);

/// <summary>What one step was.</summary>
internal sealed record StepResult(
    int Step, IReadOnlyDictionary<string, double> Values, double LearningRate, double GradientNorm, int TokenCount, TimeSpan Time)
{
    public double Loss => Values[MetricTotals.Loss];
}
