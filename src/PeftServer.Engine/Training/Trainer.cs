using System.Diagnostics;
using PeftServer.Engine.Adapters;
using PeftServer.Engine.Data;
using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Tokenizers;
using PeftServer.Engine.Training.Optimizers;

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
        var tokenizer = Tokenizer.Load(spec.Model);
        var rows = ReadRows(spec.TrainingFile, tokenizer, model);
        var validation = spec.ValidationFile is null ? null : ReadRows(spec.ValidationFile, tokenizer, model);
        using var adapter = CreateAdapter(model);
        using var optimizer = OptimizerFactory.Create(adapter, _arguments);

        using var gradients = CreateStep(model, adapter, device);

        var plan = new TrainingPlan(rows.Count, _arguments);
        var progress = new TrainingProgress(plan, TrainingCheckpoint.Restore(runFolder, optimizer), clock);
        if (progress.StepsDone > 0)
        {
            events.Message($"Going on from the checkpoint after step {progress.StepsDone}.");
        }

        for (var step = progress.StepsDone; step < plan.TotalSteps; step++)
        {
            if (Step(step, plan, rows, gradients, optimizer, device) is not { } result)
            {
                return Stop(step, optimizer);
            }

            progress.Add(result);
            Report(progress, plan, result, validation is not null && IsDue(step, _arguments.EvalSteps, plan) ? Evaluate(validation, model, adapter) : null);
            if (step + 1 < plan.TotalSteps && IsDue(step, _arguments.SaveSteps, plan))
            {
                TrainingCheckpoint.Save(runFolder, step + 1, optimizer);
                events.Write(TrainingEventType.Checkpoint, $"Checkpoint after step {step + 1}.", data: ("step", step + 1));
            }
        }

        Finish(adapter, progress);
        return TrainingOutcome.Succeeded;
    }

    /// <summary>One optimizer step over one window of micro-batches; null when the run is to stop first.</summary>
    private StepResult? Step(int step, TrainingPlan plan, IReadOnlyList<TrainingRow> rows, ITrainingStep gradients, Optimizer optimizer, Device device)
    {
        using var scope = NewDisposeScope(); // every temporary of the step dies here
        using var dropout = new Generator(SeedOf(step));
        var started = Stopwatch.GetTimestamp();
        var batches = plan.Window(step).Select(window => SftBatch.Of(window.Select(row => rows[row]))).ToList();
        var targets = batches.Sum(batch => batch.Targets.Length);

        // Forward and backward, each micro-batch weighted by the tokens that count over the whole window.
        optimizer.ZeroGrad();
        var (loss, correct) = (zeros([], device: device), zeros([], device: device));
        foreach (var batch in batches)
        {
            if (control.Request is not StopRequest.None)
            {
                return null;
            }

            using var inner = NewDisposeScope(); // activations go before the next micro-batch comes
            var (sum, hits) = gradients.ForwardBackward(batch, 1.0 / targets, dropout);
            loss.add_(sum, TensorArithmetic.One);
            correct.add_(hits, TensorArithmetic.One);
        }

        // Clip and step.
        var norm = optimizer.ClipGradients(_arguments.MaxGradNorm);
        var learningRate = plan.LearningRateAt(step);
        optimizer.Step(learningRate);
        gradients.AdapterChanged();

        var result = new StepResult(
            step + 1, loss.item<float>() / targets, correct.item<float>() / targets, learningRate, norm.item<float>(), // the one GPU sync of the step
            batches.Sum(batch => batch.TokenCount), Stopwatch.GetElapsedTime(started));
        return double.IsFinite(result.Loss) ? result : throw Diverged(result, plan, rows);
    }

    private (double Loss, double Accuracy) Evaluate(IReadOnlyList<TrainingRow> rows, CausalLanguageModel model, Adapter adapter)
    {
        using var frozen = no_grad();
        var (loss, correct, targets) = (0.0, 0L, 0L);
        foreach (var chunk in rows.Chunk(_arguments.PerDeviceTrainBatchSize))
        {
            using var scope = NewDisposeScope();
            var batch = SftBatch.Of(chunk);
            var (sum, hits) = SftLoss.Compute(model, [adapter], batch, dropout: null);
            loss += sum.item<float>();
            correct += hits.item<long>();
            targets += batch.Targets.Length;
            if (control.Request is StopRequest.Cancel)
            {
                break;
            }
        }

        return (loss / targets, (double)correct / targets);
    }

    private void Report(TrainingProgress progress, TrainingPlan plan, StepResult result, (double Loss, double Accuracy)? evaluated)
    {
        if (evaluated is null && result.Step % _arguments.LoggingSteps != 0 && result.Step != plan.TotalSteps)
        {
            return;
        }

        List<(string, object)> data =
        [
            ("step", result.Step), ("total_steps", plan.TotalSteps), ("epoch", Math.Round((double)result.Step / plan.StepsPerEpoch, 4)),
            ("train_loss", result.Loss), ("train_mean_token_accuracy", result.Accuracy), ("learning_rate", result.LearningRate),
            ("grad_norm", result.GradientNorm), ("tokens", progress.Tokens), ("tokens_per_second", progress.TokensPerSecond),
            ("eta_seconds", progress.SecondsLeft),
        ];
        if (evaluated is { } validation)
        {
            data.Add(("valid_loss", validation.Loss));
            data.Add(("valid_mean_token_accuracy", validation.Accuracy));
        }

        var valid = evaluated is { } value ? FormattableString.Invariant($", validation loss={value.Loss:F4}") : "";
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

        AdapterFile.Save(adapter, temporary, spec.ModelName);
        AdapterCompanions.Write(spec.Model, temporary);
        if (!Directory.Exists(folder))
        {
            Directory.Move(temporary, folder);
        }

        events.Write(
            TrainingEventType.Succeeded, $"Trained {progress.StepsDone} steps on {progress.Tokens} tokens.",
            data: [("trained_tokens", progress.Tokens), ("adapter", TrainingSpec.AdapterFolder)]);
    }

    private TrainingOutcome Stop(int stepsDone, Optimizer optimizer)
    {
        if (control.Request is StopRequest.Cancel)
        {
            events.Write(TrainingEventType.Cancelled, $"Cancelled after step {stepsDone}.");
            return TrainingOutcome.Cancelled;
        }

        TrainingCheckpoint.Save(runFolder, stepsDone, optimizer);
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
        if (_arguments.Faults().Concat(spec.Peft.Faults()).FirstOrDefault() is { } fault)
        {
            throw new TrainingException($"{string.Join(", ", fault.MemberNames)}: {fault.ErrorMessage}");
        }
    }

    private CausalLanguageModel LoadModel(Device device, ScalarType dtype)
    {
        events.Message($"Loading {spec.ModelName} onto {device} as {dtype.ToString().ToLowerInvariant()}.");
        return PretrainedModel.Load(spec.Model, device, dtype) as CausalLanguageModel
            ?? throw new TrainingException($"{spec.ModelName} is no causal language model; supervised fine-tuning needs one.");
    }

    private IReadOnlyList<TrainingRow> ReadRows(string path, Tokenizer tokenizer, CausalLanguageModel model)
    {
        var data = TrainingData.Read(path, tokenizer, new TrainingDataOptions { MaxLength = Math.Min(_arguments.MaxLength ?? int.MaxValue, model.MaxLength) });
        var summary = data.Summary;
        events.Message(
            $"{Path.GetFileName(path)}: {summary.Rows} rows, {summary.Used} used, {summary.Cut} cut, {summary.Skipped} skipped; "
            + $"{summary.Tokens} tokens, {summary.TrainedTokens} of them trained.", summary.Skipped > 0 ? TrainingEventLevel.Warn : TrainingEventLevel.Info);
        return data.Rows.Count > 0 && summary.TrainedTokens > 0
            ? data.Rows
            : throw new TrainingException($"{Path.GetFileName(path)} has no token to learn from: {summary.Skipped} of {summary.Rows} rows were skipped.");
    }

    private Adapter CreateAdapter(CausalLanguageModel model)
    {
        var adapter = spec.Peft.CreateAdapter(model);
        adapter.Initialize(_arguments.Seed);
        adapter.SetTraining(true);
        events.Message(adapter.TrainableSummary);
        return adapter;
    }

    private ITrainingStep CreateStep(CausalLanguageModel model, Adapter adapter, Device device)
    {
        var step = TrainingSteps.Create(model, adapter, device, _arguments, spec.Peft, out var why);
        events.Message(why);
        return step;
    }

    /// <summary>Draws of a step follow from the run's seed and the step, so that a resumed run makes the same.</summary>
    private ulong SeedOf(int step) => new SeededRandom((ulong)_arguments.Seed, (ulong)step + (1UL << 32)).Next() >> 1;

    private static bool IsDue(int step, int? every, TrainingPlan plan) =>
        every is { } steps ? (step + 1) % steps == 0 || step + 1 == plan.TotalSteps : plan.EndsEpoch(step);

    private static TrainingException Diverged(StepResult result, TrainingPlan plan, IReadOnlyList<TrainingRow> rows)
    {
        var lines = string.Join(", ", plan.Window(result.Step - 1).SelectMany(window => window).Select(row => rows[row].Line).Order().Take(20));
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
    int Step, double Loss, double Accuracy, double LearningRate, double GradientNorm, int TokenCount, TimeSpan Time);
