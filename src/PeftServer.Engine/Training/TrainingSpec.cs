using System.Text.Json;
using PeftServer.Engine.Adapters;

namespace PeftServer.Engine.Training;

/// <summary>
/// All that a training run needs, as <c>spec.json</c> in its run folder. Relative paths are relative to that folder.
/// The trainer writes beside it: <c>events.jsonl</c> (<see cref="TrainingEvent"/> a line), <c>checkpoints/</c>, and at
/// the end <c>adapter/</c>: a PEFT checkpoint with the template, added tokens and stop set it was trained with.
/// </summary>
public sealed record TrainingSpec
{
    public const string FileName = "spec.json";

    /// <summary>Folder of the adapter that comes out, in the run folder. It is complete once it is there.</summary>
    public const string AdapterFolder = "adapter";

    /// <summary>Folder of the base model: config.json, safetensors, tokenizer.</summary>
    public required string Model { get; init; }

    /// <summary>What the base is called; written into adapter_config.json.</summary>
    public required string ModelName { get; init; }

    /// <summary>Rows to train on, one JSON object a line.</summary>
    public required string TrainingFile { get; init; }

    /// <summary>Rows to evaluate on.</summary>
    public string? ValidationFile { get; init; }

    /// <summary>The method and its settings.</summary>
    public required AdapterConfig Peft { get; init; }

    /// <summary>Folder of the adapters that the method works with: in folders 0, 1, … for X-LoRA, task_0, …, gks_0, … for Arrow.</summary>
    public string? Experts { get; init; }

    /// <summary>What is learnt. Absent: supervised fine-tuning.</summary>
    public TrainingMethod Method { get; init; } = new();

    public TrainingArguments Training { get; init; } = new();

    /// <summary>auto, cpu or cuda:N.</summary>
    public string Device { get; init; } = "auto";

    /// <summary>Reads <paramref name="path"/> and makes its paths absolute. Throws <see cref="JsonException"/>.</summary>
    public static TrainingSpec Read(string path)
    {
        var spec = JsonSerializer.Deserialize<TrainingSpec>(File.ReadAllBytes(path), PeftJson.Options)
            ?? throw new JsonException($"{path} is null.");
        var folder = Path.GetDirectoryName(Path.GetFullPath(path))!;
        return spec with
        {
            Model = Path.GetFullPath(spec.Model, folder),
            TrainingFile = Path.GetFullPath(spec.TrainingFile, folder),
            Experts = spec.Experts is null ? null : Path.GetFullPath(spec.Experts, folder),
            ValidationFile = spec.ValidationFile is null ? null : Path.GetFullPath(spec.ValidationFile, folder),
        };
    }
}
