using System.Text.Json;
using System.Text.Json.Serialization;

namespace PeftServer.Engine.Training;

/// <summary>
/// One line of a run folder's <c>events.jsonl</c>: what the trainer tells its supervisor. Numbers are finite; a metric
/// that is not is left out and said in <see cref="Message"/>.
/// </summary>
public sealed record TrainingEvent
{
    public const string FileName = "events.jsonl";

    /// <summary>1, 2, 3, … without a gap over the life of the run folder.</summary>
    public required int Number { get; init; }

    /// <summary>Unix time in milliseconds.</summary>
    public required long CreatedAt { get; init; }

    public required TrainingEventType Type { get; init; }

    public TrainingEventLevel Level { get; init; } = TrainingEventLevel.Info;

    /// <summary>A sentence for people.</summary>
    public required string Message { get; init; }

    /// <summary>
    /// For <see cref="TrainingEventType.Metrics"/>: step, total_steps, train_loss, train_mean_token_accuracy,
    /// learning_rate, grad_norm, tokens, tokens_per_second, epoch, eta_seconds, valid_loss, valid_mean_token_accuracy, …; and of the machine mfu, memory_bytes,
    /// memory_peak_bytes, device_memory_bytes, device_memory_peak_bytes, device_memory_reserved_bytes, those that there are.
    /// For <see cref="TrainingEventType.Succeeded"/>: trained_tokens, adapter (folder).
    /// </summary>
    public IReadOnlyDictionary<string, JsonElement>? Data { get; init; }

    [JsonIgnore]
    public bool IsFinal => Type is TrainingEventType.Succeeded or TrainingEventType.Failed or TrainingEventType.Cancelled or TrainingEventType.Paused;
}

public enum TrainingEventType
{
    Message,
    Metrics,
    /// <summary>A checkpoint to resume from is complete; data: step.</summary>
    Checkpoint,
    Succeeded,
    Failed,
    Cancelled,
    Paused,
}

public enum TrainingEventLevel
{
    Info,
    Warn,
    Error,
}
