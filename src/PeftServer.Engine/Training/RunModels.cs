using PeftServer.Engine.Adapters;
using PeftServer.Engine.Models;
using PeftServer.Engine.Quantization;
using PeftServer.Engine.Training.Objectives;
using PeftServer.Engine.Training.Tasks;

namespace PeftServer.Engine.Training;

/// <summary>What a run is made of before its first step: its base, the adapter that trains, and the frozen one that it is held to.</summary>
/// <param name="spec">The run.</param>
/// <param name="say">Told what is loaded, made and started from.</param>
internal sealed class RunModels(TrainingSpec spec, Action<string> say)
{
    /// <summary>Digest of the adapter that the run starts from; null where it starts from none.</summary>
    public string? StartingSha256 { get; } = spec.StartingAdapter is { } start && Directory.Exists(start) ? StartingAdapters.DigestOf(start) : null;

    /// <summary>The classes of the run; null for methods without classes.</summary>
    public IReadOnlyList<string>? ReadLabels()
    {
        using var rows = File.OpenRead(spec.TrainingFile);
        var labels = MethodData.Labels(spec.Method, rows, StartingAdapters.LabelsOf(spec.StartingAdapter));
        return labels is { Count: < 2 } && spec.Method.Type is not TrainingMethodType.Reward
            ? throw new TrainingException($"{Path.GetFileName(spec.TrainingFile)} has {labels.Count} label(s); there must be at least two to tell apart.")
            : labels;
    }

    /// <summary>The base.</summary>
    public PretrainedModel Load(Device device, ScalarType dtype, IReadOnlyList<string>? labels)
    {
        var packed = spec.Training.Quantization is BaseQuantization.None ? "" : $", its matrices in {spec.Training.Quantization.ToString().ToLowerInvariant()}";
        say($"Loading {spec.ModelName} onto {device} as {dtype.ToString().ToLowerInvariant()}{packed}.");
        return PretrainedModel.Load(spec.Model, device, dtype, spec.Method.Head, spec.Training.Seed, labels, spec.Training.Quantization);
    }

    /// <summary>The adapter that trains, as the run begins with it.</summary>
    public Adapter CreateAdapter(PretrainedModel model)
    {
        var adapter = spec.StartingAdapter is { } start ? Started(start, model) : New(model);
        var saved = adapter.Parts.Where(entry => entry.Part is TrainableCopy).Select(entry => entry.Site.Path).ToHashSet();
        if (model.Drawn.FirstOrDefault(weight => !saved.Contains(weight.Path[..weight.Path.LastIndexOf('.')])) is { } lost)
        {
            adapter.Dispose();
            throw new TrainingException(
                $"peft.modules_to_save: {spec.ModelName} has no weights for {lost.Path}, so they start at random and must be trained and saved. Add \"{lost.Path.Split('.')[0]}\".");
        }

        if (spec.StartingAdapter is null)
        {
            adapter.Initialize(spec.Training.Seed);
        }

        adapter.SetTraining(true);
        say(adapter.TrainableSummary);
        if (spec.Training.NeftuneNoiseAlpha is { } alpha and > 0)
        {
            NeftuneNoise.Attach(model, adapter, alpha);
        }

        return adapter;
    }

    private Adapter Started(string start, PretrainedModel model)
    {
        say($"Going on from a trained adapter ({spec.Peft.PeftType}, sha256 {StartingSha256}).");
        return AdapterFile.Load(start, model);
    }

    /// <summary>The frozen adapter that the policy is held to; null where it is the base or the method has no reference.</summary>
    public Adapter? CreateReference(PretrainedModel model)
    {
        if (!spec.Method.HasReference || (spec.Method.Reference ?? DefaultReference) is PreferenceReference.AdapterOff)
        {
            return null;
        }

        say("The reference is a frozen copy of the adapter that the run starts from.");
        return StartingAdapters.Freeze(spec.StartingAdapter!, model);
    }

    private PreferenceReference DefaultReference => spec.StartingAdapter is null ? PreferenceReference.AdapterOff : PreferenceReference.StartingAdapter;

    private Adapter New(PretrainedModel model)
    {
        var task = spec.Method.TaskType;
        var peft = spec.Peft.TaskType is null && task is not TaskType.CausalLm ? spec.Peft with { TaskType = task } : spec.Peft;
        peft = spec.Experts is null ? peft : peft.WithExperts(spec.Experts);
        return peft.NeedsCalibration ? Calibrated(peft, model) : peft.CreateAdapter(model);
    }

    /// <summary>An adapter that starts from what the model makes of the training file.</summary>
    private Adapter Calibrated(AdapterConfig peft, PretrainedModel model)
    {
        var data = CalibrationRows.Read(spec, model as LanguageModel ?? throw new TrainingException("peft.init_lora_weights: a start from data needs a language model."));
        say($"Running up to {data.Batches.Sum(batch => batch.Count)} rows of {Path.GetFileName(spec.TrainingFile)} through the model to start the adapter.");
        return peft.CreateCalibrated(model, data);
    }
}
