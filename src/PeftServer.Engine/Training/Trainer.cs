using System.Text.Json;
using PeftServer.Engine.Adapters;
using PeftServer.Engine.Native;
using PeftServer.Engine.Training.Objectives;
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
    private readonly RunModels _models = new(spec, message => events.Message(message));

    /// <summary>Called before each micro-batch with its rows; tests have memory run out here.</summary>
    internal Action<int>? BeforeMicroBatch { get; init; }

    /// <summary>The same before each batch of an evaluation.</summary>
    internal Action<int>? BeforeEvaluation { get; init; }

    /// <summary>Whether the longest rows are tried before the first step; absent: on GPUs, whose memory runs out where a CPU's would swap.</summary>
    internal bool? TriesLongest { get; init; }

    /// <summary>Free bytes where a folder lies.</summary>
    internal Func<string, long> FreeDisk { get; init; } = DiskSpace.Free;

    /// <summary>
    /// Trains to the end, or until the control asks to stop. Throws for what the owner of the run must mend: a broken
    /// model, data without anything to learn, a loss that is no number (<see cref="TrainingException"/>).
    /// </summary>
    public TrainingOutcome Run()
    {
        Refuse();
        var device = Devices.Parse(spec.Device);
        Devices.Prepare(device);
        var dtype = Devices.DefaultDtype(device, _arguments.Bf16);
        var labels = _models.ReadLabels();
        using var model = _models.Load(device, dtype, labels);
        var meter = new RunMeter(device, dtype, _arguments.Quantization, spec.PeakTflops, message => events.Message(message));
        using var adapter = _models.CreateAdapter(model);
        if (!adapter.Trainable.Any())
        {
            return PutTogether(adapter, labels);
        }

        using var optimizer = OptimizerFactory.Create(adapter, _arguments);

        using var reference = _models.CreateReference(model);
        var tasks = new TrainingTasks(spec, events, model, adapter, labels ?? [], control, reference);
        using var task = tasks.Read(spec.TrainingFile, trains: true);
        using var validation = spec.ValidationFile is null || _arguments.EvalStrategy is IntervalStrategy.No ? null : tasks.Read(spec.ValidationFile, trains: false);
        using var board = _arguments.ReportTo is ReportTarget.Tensorboard ? new TensorBoardLog(runFolder, clock) : null;

        var plan = TrainingPlan.For(task.Rows, _arguments, spec.Method);
        adapter.BeginTraining(plan.TotalSteps);
        RequireDisk((_arguments.SaveTotalLimit ?? 1) + 2, optimizer, adapter, "before the run");
        var state = Restored(TrainingCheckpoint.Restore(runFolder, optimizer, adapter));
        task.Progress = state.Task;
        var progress = new TrainingProgress(plan, state.StepsDone, clock, state.Tokens);
        if (progress.StepsDone > 0)
        {
            events.Message($"Going on from the checkpoint after step {progress.StepsDone}.");
        }

        var run = new RunState(_models.StartingSha256, progress, new BestModel(_arguments, state), new LossWatch(_arguments.LossSpikeFactor, state.RecentLosses), task, optimizer, adapter);
        var steps = new StepRunner(plan, task, optimizer, adapter, _arguments, events, control) { BeforeMicroBatch = BeforeMicroBatch };
        if (_arguments.GradientCheckpointing is true && task.UsesAutograd)
        {
            events.Message("Activations are computed again on the way back: gradient_checkpointing is true.");
        }

        if ((TriesLongest ?? device.type is DeviceType.CUDA) && progress.StepsDone < plan.TotalSteps && task is not GrpoTask)
        {
            steps.TryLongest();
        }

        var evaluator = validation is null ? null : new Evaluator(validation, _arguments.PerDeviceTrainBatchSize, events, control, clock) { BeforeBatch = BeforeEvaluation };
        for (var step = progress.StepsDone; step < plan.TotalSteps && !run.Best.IsStale; step++)
        {
            if (steps.Run(step) is not { } result)
            {
                return Stop(run);
            }

            if (run.Watch.Fault(result.Loss) is { } fault)
            {
                throw Diverged(result, fault, plan, task);
            }

            progress.Add(result);
            var evaluated = EvaluatesAfter(step, plan) ? evaluator?.Run() : null;
            Report(progress, plan, result, evaluated, meter, board);
            var isBest = evaluated is not null && run.Best.Observe(evaluated, result.Step);
            if (isBest && _arguments.LoadBestModelAtEnd)
            {
                TrainingCheckpoint.SaveBest(runFolder, optimizer, adapter);
            }

            if (step + 1 < plan.TotalSteps && SavesAfter(step, plan, isBest))
            {
                Save(run);
            }
        }

        Finish(adapter, run, plan, labels);
        return TrainingOutcome.Succeeded;
    }

    private bool EvaluatesAfter(int step, TrainingPlan plan) => (_arguments.EvalStrategy ?? (_arguments.EvalSteps is null ? IntervalStrategy.Epoch : IntervalStrategy.Steps)) switch
    {
        IntervalStrategy.Steps => (step + 1) % (_arguments.EvalSteps ?? _arguments.LoggingSteps) == 0 || step + 1 == plan.TotalSteps,
        IntervalStrategy.Epoch => plan.EndsEpoch(step),
        _ => false,
    };

    private bool SavesAfter(int step, TrainingPlan plan, bool isBest) => (_arguments.SaveStrategy ?? (_arguments.SaveSteps is null ? SaveStrategy.Epoch : SaveStrategy.Steps)) switch
    {
        SaveStrategy.Steps => (step + 1) % (_arguments.SaveSteps ?? 500) == 0,
        SaveStrategy.Epoch => plan.EndsEpoch(step),
        SaveStrategy.Best => isBest,
        _ => false,
    };

    private void Save(RunState run)
    {
        if (DiskSpace.Shortage(runFolder, TrainingCheckpoint.SizeOf(run.Optimizer, run.Adapter), FreeDisk) is { } shortage)
        {
            events.Message($"No checkpoint after step {run.Progress.StepsDone}: {shortage}. Training goes on; free some space.", TrainingEventLevel.Warn);
            return;
        }

        TrainingCheckpoint.Save(runFolder, run.State, run.Optimizer, run.Adapter, _arguments.SaveTotalLimit ?? 1);
        events.Write(TrainingEventType.Checkpoint, $"Checkpoint after step {run.Progress.StepsDone}.", data: ("step", run.Progress.StepsDone));
    }

    private void Report(TrainingProgress progress, TrainingPlan plan, StepResult result, Dictionary<string, double>? evaluated, RunMeter meter, TensorBoardLog? board)
    {
        if (evaluated is null && result.Step % _arguments.LoggingSteps != 0 && result.Step != plan.TotalSteps)
        {
            return;
        }

        List<(string Name, object Value)> data =
        [
            ("step", result.Step), ("total_steps", plan.TotalSteps), ("epoch", Math.Round((double)result.Step / plan.StepsPerEpoch, 4)),
            .. result.Values.Select(value => ($"train_{value.Key}", (object)value.Value)), ("learning_rate", result.LearningRate),
            ("grad_norm", result.GradientNorm), ("tokens", progress.Tokens), ("tokens_per_second", progress.TokensPerSecond),
            ("eta_seconds", progress.SecondsLeft), .. meter.Read(progress.FlopsPerSecond),
        ];
        data.AddRange((evaluated ?? []).Select(value => ($"valid_{value.Key}", (object)value.Value)));
        var valid = evaluated is null ? "" : FormattableString.Invariant($", validation loss={evaluated[MetricTotals.Loss]:F4}");
        events.Write(
            TrainingEventType.Metrics,
            FormattableString.Invariant($"Step {result.Step}/{plan.TotalSteps}: training loss={result.Loss:F4}{valid}"), data: data);
        board?.Write(result.Step, data
            .Where(each => each.Name is not ("step" or "total_steps" or "eta_seconds"))
            .Select(each => (Tag(each.Name), Convert.ToDouble(each.Value, System.Globalization.CultureInfo.InvariantCulture))));
    }

    /// <summary>TensorBoard groups by what stands before the slash, and transformers has taught people these two.</summary>
    private static string Tag(string name) =>
        name.StartsWith("valid_", StringComparison.Ordinal) ? $"eval/{name["valid_".Length..]}"
        : name.StartsWith("train_", StringComparison.Ordinal) ? $"train/{name["train_".Length..]}"
        : $"train/{name}";

    private void Finish(Adapter adapter, RunState run, TrainingPlan plan, IReadOnlyList<string>? labels)
    {
        if (run.Best.IsStale && run.Progress.StepsDone < plan.TotalSteps)
        {
            events.Message($"Stopped early after step {run.Progress.StepsDone}: {run.Best.EvaluationsWithoutGain} evaluations without a better {run.Best.Name}.");
        }

        if (_arguments.LoadBestModelAtEnd && run.Best.Step != run.Progress.StepsDone && TrainingCheckpoint.RestoreBest(runFolder, run.Optimizer, adapter))
        {
            events.Message(FormattableString.Invariant($"Took the weights after step {run.Best.Step} back: {run.Best.Name} was {run.Best.Metric:G6} there."));
        }

        adapter.SetTraining(false);
        RequireDisk(1, run.Optimizer, adapter, "for the adapter");
        WriteAdapter(adapter, labels);
        events.Write(
            TrainingEventType.Succeeded, $"Trained {run.Progress.StepsDone} steps on {run.Progress.Tokens} tokens.",
            data: [("trained_tokens", run.Progress.Tokens), ("adapter", TrainingSpec.AdapterFolder)]);
    }

    /// <summary>An adapter of finished ones has nothing to train: it is written as it is.</summary>
    private TrainingOutcome PutTogether(Adapter adapter, IReadOnlyList<string>? labels)
    {
        WriteAdapter(adapter, labels);
        events.Write(
            TrainingEventType.Succeeded, $"Put {spec.Peft.Experts.Count} adapters together. Nothing trains in that, so no step was taken.",
            data: [("trained_tokens", 0L), ("adapter", TrainingSpec.AdapterFolder)]);
        return TrainingOutcome.Succeeded;
    }

    private void WriteAdapter(Adapter adapter, IReadOnlyList<string>? labels)
    {
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

        AdapterCompanions.Write(spec.Model, temporary, spec.Method.Type is TrainingMethodType.Reward ? null : labels);
        File.WriteAllBytes(
            Path.Combine(temporary, TrainingManifest.FileName), JsonSerializer.SerializeToUtf8Bytes(TrainingManifest.Of(spec), PeftJson.Indented));
        if (!Directory.Exists(folder))
        {
            Directory.Move(temporary, folder);
        }
    }

    private TrainingOutcome Stop(RunState run)
    {
        var stepsDone = run.Progress.StepsDone;
        if (control.Request is StopRequest.Cancel)
        {
            events.Write(TrainingEventType.Cancelled, $"Cancelled after step {stepsDone}.");
            return TrainingOutcome.Cancelled;
        }

        Save(run);
        if (control.Request is StopRequest.Abandon)
        {
            return TrainingOutcome.Abandoned;
        }

        events.Write(TrainingEventType.Paused, $"Paused after step {stepsDone}.");
        return TrainingOutcome.Paused;
    }

    private void RequireDisk(int checkpoints, Optimizer optimizer, Adapter adapter, string when)
    {
        if (DiskSpace.Shortage(runFolder, checkpoints * TrainingCheckpoint.SizeOf(optimizer, adapter), FreeDisk) is { } shortage)
        {
            throw new TrainingException($"There is too little disk space {when}: {shortage}. Free some, or lower save_total_limit.");
        }
    }

    private void Refuse()
    {
        if (_arguments.Faults().Concat(spec.Peft.Faults()).Concat(spec.Method.Faults()).Concat(spec.Method.Faults(_arguments)).FirstOrDefault() is { } fault)
        {
            throw new TrainingException($"{string.Join(", ", fault.MemberNames)}: {fault.ErrorMessage}");
        }

        if (spec.Method.EmbeddingModels.FirstOrDefault(name => spec.EmbeddingModels?.ContainsKey(name) is not true) is { } model)
        {
            throw new TrainingException($"method.grpo.grader.embedding_model: there is no '{model}' in the spec's embedding_models. Add its folder there.");
        }

        if (spec.ValidationFile is null && _arguments.NeedsEvaluation is { } field)
        {
            throw new TrainingException($"{field} needs evaluations, but there is no validation_file. Add one, or leave {field} out.");
        }

        if (spec.Peft.TaskType is { } task && task != spec.Method.TaskType)
        {
            throw new TrainingException(spec.StartingAdapter is null
                ? $"peft.task_type: the method {spec.Method.Type} trains for {spec.Method.TaskType}, not {task}. Leave task_type out."
                : $"starting_adapter: it was trained for {task}; the method {spec.Method.Type} trains for {spec.Method.TaskType}. Start from an adapter of that task, or from none.");
        }

        if (spec.StartingAdapter is { } start)
        {
            RefuseStart(start);
        }
        else if (spec.Method.Reference is PreferenceReference.StartingAdapter)
        {
            throw new TrainingException("reference: it is starting_adapter, but the run starts from none. Name one, or take adapter_off.");
        }
    }

    private void RefuseStart(string start)
    {
        if (!File.Exists(Path.Combine(start, AdapterFile.ConfigName)))
        {
            throw new TrainingException($"starting_adapter: there is no {AdapterFile.ConfigName} in {start}. Name the folder of an adapter as PEFT saves it.");
        }

        var own = AdapterFile.ReadConfig(start);
        StartingAdapters.Resolve(own, JsonSerializer.SerializeToNode(spec.Peft, PeftJson.Options)!.AsObject());
    }

    /// <summary>Where a run stood. What its optimizer knows is of the weights that it began with.</summary>
    private TrainingState Restored(TrainingState state) => state.StepsDone == 0 || state.StartingAdapterSha256 == _models.StartingSha256
        ? state
        : throw new TrainingException(
            $"starting_adapter: the checkpoint in this run folder is of a run that started from {state.StartingAdapterSha256 ?? "no adapter"}, not from {_models.StartingSha256 ?? "none"}. Give it back, or take another run folder.");

    private static TrainingException Diverged(StepResult result, string fault, TrainingPlan plan, TrainingTask task)
    {
        var lines = string.Join(", ", plan.Window(result.Step - 1).SelectMany(window => window).SelectMany(task.Lines).Distinct().Order().Take(20));
        return new TrainingException(FormattableString.Invariant(
            $"The loss of step {result.Step} {fault}, at learning rate {result.LearningRate:G3} (gradient norm {result.GradientNorm:G3}). Its rows are lines {lines}. Lower learning_rate or add warm-up, and look at these rows; loss_spike_factor = 0 goes on in spite of spikes."));
    }

    /// <summary>What a run carries from step to step.</summary>
    private sealed record RunState(string? StartingAdapterSha256, TrainingProgress Progress, BestModel Best, LossWatch Watch, TrainingTask Task, Optimizer Optimizer, Adapter Adapter)
    {
        public TrainingState State => new()
        {
            StepsDone = Progress.StepsDone,
            StartingAdapterSha256 = StartingAdapterSha256,
            Tokens = Progress.Tokens,
            BestMetric = Best.Metric,
            BestStep = Best.Step,
            EvaluationsWithoutGain = Best.EvaluationsWithoutGain,
            RecentLosses = Watch.Recent,
            Task = Task.Progress,
        };
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
