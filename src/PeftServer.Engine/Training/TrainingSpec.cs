using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization;
using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.Lora;

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

    /// <summary>The method and its settings. Absent: those of <see cref="StartingAdapter"/>, or LoRA with PEFT's defaults.</summary>
    public AdapterConfig Peft { get; init; } = new LoraConfig();

    /// <summary>Folder of an adapter on the same base, as PEFT saves it, that training goes on from. Its settings are those of the run.</summary>
    public string? StartingAdapter { get; init; }

    /// <summary>Folder of the adapters that the method works with: in folders 0, 1, … for X-LoRA, task_0, …, gks_0, … for Arrow.</summary>
    public string? Experts { get; init; }

    /// <summary>Folders of the models that graders embed texts by, by their names.</summary>
    public IReadOnlyDictionary<string, string>? EmbeddingModels { get; init; }

    /// <summary>What is learnt. Absent: supervised fine-tuning.</summary>
    public TrainingMethod Method { get; init; } = new();

    public TrainingArguments Training { get; init; } = new();

    /// <summary>Settings that are "auto" and not yet picked, as <see cref="AutoSettings"/> knows them.</summary>
    [JsonIgnore]
    public IReadOnlyList<string> Auto { get; init; } = [];

    /// <summary>auto, cpu or cuda:N.</summary>
    public string Device { get; init; } = "auto";

    /// <summary>
    /// What the device multiplies in a second at most, in TFLOP/s: the measure of the metric <c>mfu</c>. Absent: the vendor's figure of a known GPU; no such metric
    /// elsewhere.
    /// </summary>
    public double? PeakTflops { get; init; }

    /// <summary>
    /// Reads <paramref name="path"/> and makes its paths absolute. Throws <see cref="JsonException"/>; for a starting adapter also <see cref="Weights.CheckpointException"/>
    /// where it cannot be read, and <see cref="AdapterException"/> where the settings beside it are not its own.
    /// </summary>
    public static TrainingSpec Read(string path)
    {
        var folder = Path.GetDirectoryName(Path.GetFullPath(path))!;
        var fields = JsonNode.Parse(File.ReadAllBytes(path)) as JsonObject ?? throw new JsonException($"{path} is no object.");
        var start = fields["starting_adapter"] is JsonValue value && value.TryGetValue<string>(out var relative) ? Path.GetFullPath(relative, folder) : null;
        var given = start is null ? null : fields["peft"]; // a part of the settings says as much as all of them
        if (start is not null)
        {
            fields.Remove("peft");
        }

        var auto = AutoFields.In(JsonSerializer.SerializeToElement(fields));
        if (auto.Select(each => AutoFields.Fault(each, (string?)fields["peft"]?["peft_type"])).FirstOrDefault(fault => fault is not null) is { } fault)
        {
            throw new JsonException(fault);
        }

        AutoFields.Remove(fields, auto);
        var spec = fields.Deserialize<TrainingSpec>(PeftJson.Options)!;
        return spec with
        {
            Peft = start is null ? spec.Peft : StartingAdapters.Resolve(AdapterFile.ReadConfig(start), given as JsonObject),
            Auto = [.. auto.Select(each => AutoSettings.Fields[each])],
            StartingAdapter = start,
            EmbeddingModels = spec.EmbeddingModels?.ToDictionary(model => model.Key, model => Path.GetFullPath(model.Value, folder)),
            Model = Path.GetFullPath(spec.Model, folder),
            TrainingFile = Path.GetFullPath(spec.TrainingFile, folder),
            Experts = spec.Experts is null ? null : Path.GetFullPath(spec.Experts, folder),
            ValidationFile = spec.ValidationFile is null ? null : Path.GetFullPath(spec.ValidationFile, folder),
        };
    }
}
