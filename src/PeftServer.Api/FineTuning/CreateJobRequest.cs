using System.Text.Json;
using System.Text.Json.Serialization;
using PeftServer.Core.Http;
using PeftServer.Engine.Adapters;
using PeftServer.Engine.Training;

namespace PeftServer.Api.FineTuning;

/// <summary>A fine-tune job to create: OpenAI's fields, and <c>peft</c> and <c>training</c> for what they cannot say.</summary>
[TakesAuto]
public sealed record CreateJobRequest
{
    /// <summary>
    /// A base model: the name of a folder in the server's model root, as <c>GET /v1/models</c> lists it. Or a fine-tuned one (<c>ft:…</c>, checkpoints of jobs included):
    /// training goes on from its adapter, with its <c>peft</c> settings, on its base.
    /// </summary>
    public required string Model { get; init; }

    /// <summary>Id of an uploaded file with purpose <c>fine-tune</c>.</summary>
    public required string TrainingFile { get; init; }

    /// <summary>Id of an uploaded file to evaluate on.</summary>
    public string? ValidationFile { get; init; }

    /// <summary>Becomes part of the new model's id; 1 to 64 letters, digits, dots, dashes, underscores.</summary>
    public string? Suffix { get; init; }

    /// <summary>Draws of initial weights, order of rows and dropout: the same seed gives the same bytes on one machine.</summary>
    public int? Seed { get; init; }

    /// <summary>The objective, its settings, and OpenAI's hyperparameters. Absent: supervised.</summary>
    public FineTuneMethod? Method { get; init; }

    /// <summary>OpenAI's older place for the hyperparameters; <c>method</c> is the newer one.</summary>
    public Hyperparameters? Hyperparameters { get; init; }

    /// <summary>Up to 16 pairs of your own: keys of 64 characters, values of 512.</summary>
    public IReadOnlyDictionary<string, string>? Metadata { get; init; }

    /// <summary>Trackers of OpenAI's API. None is supported yet: leave it out or empty.</summary>
    public IReadOnlyList<JsonElement>? Integrations { get; init; }

    /// <summary>
    /// The PEFT method and its settings, under the names of <c>adapter_config.json</c>, chosen by <c>peft_type</c>.
    /// Absent: LoRA with PEFT's defaults; or where <c>model</c> is a fine-tuned one, its own settings, beside which no others can be given.
    /// </summary>
    public AdapterConfig? Peft { get; init; }

    /// <summary>
    /// How to train, under the names of Hugging Face's <c>TrainingArguments</c>. <c>"auto"</c> as the value of num_train_epochs, per_device_train_batch_size, learning_rate,
    /// lr_scheduler_type, warmup_ratio, optim, bf16, packing or max_length, and of LoRA's r and lora_alpha in <c>peft</c>, is picked once the files are checked.
    /// </summary>
    public TrainingArguments? Training { get; init; }
}

/// <summary>
/// OpenAI's three hyperparameters. Each is a number or <c>"auto"</c>: picked by the data, the method and the model once the files are checked; the job's events say
/// what and why. Left out: the default.
/// </summary>
public record Hyperparameters
{
    /// <summary>Rows to an optimizer step, 1 to 256. The same as <c>training.per_device_train_batch_size</c>.</summary>
    public AutoNumber? BatchSize { get; init; }

    /// <summary>The default learning rate times this; above 0. The same as <c>training.learning_rate</c>.</summary>
    public AutoNumber? LearningRateMultiplier { get; init; }

    /// <summary>Passes over the training file, 1 to 50. The same as <c>training.num_train_epochs</c>.</summary>
    public AutoNumber? NEpochs { get; init; }
}

/// <summary>A number, or <c>"auto"</c> where <see cref="Value"/> is null.</summary>
[JsonConverter(typeof(AutoNumberConverter))]
public sealed record AutoNumber(double? Value)
{
    private sealed class AutoNumberConverter : JsonConverter<AutoNumber>
    {
        public override AutoNumber Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options) =>
            reader.TokenType switch
            {
                JsonTokenType.Number => new(reader.GetDouble()),
                JsonTokenType.String when reader.ValueTextEquals("auto") => new((double?)null),
                _ => throw new JsonException("It must be a number or \"auto\"."),
            };

        public override void Write(Utf8JsonWriter writer, AutoNumber value, JsonSerializerOptions options)
        {
            if (value.Value is { } number)
            {
                writer.WriteNumberValue(number);
                return;
            }

            writer.WriteStringValue("auto");
        }
    }
}
