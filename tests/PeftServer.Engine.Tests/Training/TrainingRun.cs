using System.Text.Json;
using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.Lora;
using PeftServer.Engine.Training;

namespace PeftServer.Engine.Tests.Training;

/// <summary>A run folder with a spec for the sample model and a few rows; it is deleted with this object.</summary>
internal sealed class TrainingRun : IDisposable
{
    private readonly List<TrainingEvent> _events = [];

    public TrainingRun(
        IEnumerable<string> rows, TrainingMethod? method = null, Func<TrainingArguments, TrainingArguments>? change = null, double dropout = 0.1, string? model = null,
        IEnumerable<string>? evaluated = null, AdapterConfig? peft = null, string? start = null)
    {
        File.WriteAllLines(Path.Combine(Folder, "rows.jsonl"), rows);
        if (evaluated is not null)
        {
            File.WriteAllLines(Path.Combine(Folder, "valid.jsonl"), evaluated);
        }

        var arguments = new TrainingArguments { MaxSteps = 6, PerDeviceTrainBatchSize = 2, LearningRate = 5e-3, LrSchedulerType = LearningRateSchedule.Constant, SaveSteps = 2 };
        Spec = new TrainingSpec
        {
            Model = model ?? Samples.TinyLlama,
            ModelName = model is null ? "tiny-llama" : "small",
            TrainingFile = Path.Combine(Folder, "rows.jsonl"),
            ValidationFile = evaluated is null ? null : Path.Combine(Folder, "valid.jsonl"),
            StartingAdapter = start,
            Peft = start is not null ? AdapterFile.ReadConfig(start) : peft ?? new LoraConfig { R = 4, LoraDropout = dropout },
            Method = method ?? new TrainingMethod(),
            Training = change?.Invoke(arguments) ?? arguments,
            Device = "cpu",
        };
    }

    public string Folder { get; } = Directory.CreateTempSubdirectory("peftserver-run-").FullName;

    public TrainingSpec Spec { get; init; }

    /// <summary>The trainer's time; its events keep the system's.</summary>
    public TimeProvider Clock { get; init; } = TimeProvider.System;

    public string AdapterFolder => Path.Combine(Folder, TrainingSpec.AdapterFolder);

    public string Weights => Path.Combine(AdapterFolder, "adapter_model.safetensors");

    /// <summary>The loss of every step so far.</summary>
    public IReadOnlyList<double> Losses => [.. Metrics("train_loss")];

    /// <summary>A metric of every step that has it.</summary>
    public IEnumerable<double> Metrics(string name) =>
        _events.Where(each => each.Data?.ContainsKey(name) is true).Select(each => each.Data![name].GetDouble());

    public string Messages => string.Join("\n", _events.Select(each => each.Message));

    /// <summary>Writes the spec, for another process.</summary>
    public string WriteSpec()
    {
        var path = Path.Combine(Folder, TrainingSpec.FileName);
        File.WriteAllText(path, JsonSerializer.Serialize(Spec, PeftJson.Options));
        return path;
    }

    /// <summary>Runs on; stops as <paramref name="stop"/> says once <paramref name="steps"/> steps are reported.</summary>
    public TrainingOutcome Run(
        int? steps = null, StopRequest stop = StopRequest.None, Action<int>? beforeMicroBatch = null, Func<string, long>? freeDisk = null, Action<int>? beforeEvaluation = null, bool? triesLongest = null)
    {
        var control = new TrainerControl();
        using var events = new EventLog(Folder, TimeProvider.System, written =>
        {
            _events.Add(written);
            if (written.Type is TrainingEventType.Metrics && written.Data!["step"].GetInt32() == steps)
            {
                control.Stop(stop);
            }
        });
        return new Trainer(Spec, Folder, events, control, Clock)
        {
            BeforeMicroBatch = beforeMicroBatch,
            BeforeEvaluation = beforeEvaluation,
            TriesLongest = triesLongest,
            FreeDisk = freeDisk ?? DiskSpace.Free,
        }.Run();
    }

    public void Dispose() => Directory.Delete(Folder, recursive: true);
}
