using System.Text.Json;
using PeftServer.Core.Jobs;
using PeftServer.Engine.Adapters;
using PeftServer.Engine.Training;

namespace PeftServer.Api.FineTuning;

/// <summary>OpenAI's fine-tune job; <c>peft</c>, <c>training</c> and <c>progress</c> are this server's. Times are Unix seconds.</summary>
public sealed record JobObject
{
    public required string Id { get; init; }

    public string Object { get; init; } = "fine_tuning.job";

    /// <summary>The model that the request named: a base, or the fine-tuned one that training goes on from.</summary>
    public required string Model { get; init; }

    public required long CreatedAt { get; init; }

    public long? FinishedAt { get; init; }

    /// <summary>The id to chat with, once the job has succeeded.</summary>
    public string? FineTunedModel { get; init; }

    public required string OrganizationId { get; init; }

    public IReadOnlyList<string> ResultFiles { get; init; } = [];

    /// <summary>validating_files, queued, running, paused, succeeded, failed or cancelled.</summary>
    public required JobState Status { get; init; }

    public string? ValidationFile { get; init; }

    public required string TrainingFile { get; init; }

    /// <summary>The settings in OpenAI's words, with "auto" resolved.</summary>
    public required Hyperparameters Hyperparameters { get; init; }

    /// <summary>Tokens that counted in the loss.</summary>
    public long? TrainedTokens { get; init; }

    /// <summary>Why the job failed: code, message, param. Empty otherwise.</summary>
    public object? Error { get; init; }

    public string? UserProvidedSuffix { get; init; }

    public required int Seed { get; init; }

    /// <summary>Always null, since clients sleep until then; <c>progress.eta_seconds</c> says it.</summary>
    public long? EstimatedFinish { get; init; }

    public IReadOnlyList<object> Integrations { get; init; } = [];

    public IReadOnlyDictionary<string, string>? Metadata { get; init; }

    public object? UsageMetrics { get; init; }

    public bool SharedWithOpenai { get; init; }

    public string? EvalId { get; init; }

    /// <summary>The objective and its settings, with every default filled in.</summary>
    public required FineTuneMethod Method { get; init; }

    /// <summary>The PEFT method with all its settings: what goes into adapter_config.json.</summary>
    public required AdapterConfig Peft { get; init; }

    /// <summary>The training settings, with every default filled in.</summary>
    public required TrainingArguments Training { get; init; }

    /// <summary>How far the training is; null before its first step.</summary>
    public JobProgress? Progress { get; init; }

    public static JobObject From(FineTuningJob job, string organization, bool strictNull)
    {
        var hyperparameters = new JobSettings(job.Peft, job.Method, job.Training, job.AutoSettings).ToHyperparameters();
        return new()
        {
            Id = job.Id,
            Model = job.StartingModel ?? job.BaseModel,
            CreatedAt = job.CreatedAt.ToUnixTimeSeconds(),
            FinishedAt = job.FinishedAt?.ToUnixTimeSeconds(),
            FineTunedModel = job.FineTunedModel,
            OrganizationId = $"org-{organization}",
            ResultFiles = job.ResultFiles,
            Status = job.State,
            ValidationFile = job.ValidationFile,
            TrainingFile = job.TrainingFile,
            Hyperparameters = hyperparameters,
            TrainedTokens = job.TrainedTokens,
            Error = job.Error ?? (strictNull ? null : new object()),
            UserProvidedSuffix = job.Suffix,
            Seed = job.Training.Seed,
            Metadata = job.Metadata,
            Method = FineTuneMethod.From(job.Method, hyperparameters),
            Peft = job.Peft,
            Training = job.Training,
            Progress = JobProgress.From(job),
        };
    }
}

/// <summary>How far a job is: the numbers of its newest metrics event.</summary>
public sealed record JobProgress
{
    public int? Step { get; init; }

    public int? TotalSteps { get; init; }

    public double? Epoch { get; init; }

    public double? TrainLoss { get; init; }

    public double? LearningRate { get; init; }

    public double? TokensPerSecond { get; init; }

    /// <summary>Share of the device's peak that the model's own operations make, where the peak is known.</summary>
    public double? Mfu { get; init; }

    /// <summary>Bytes of the trainer's process.</summary>
    public long? MemoryBytes { get; init; }

    /// <summary>Bytes of its tensors on the GPU, where it has one.</summary>
    public long? DeviceMemoryBytes { get; init; }

    /// <summary>The most of them so far.</summary>
    public long? DeviceMemoryPeakBytes { get; init; }

    /// <summary>Seconds until the training is done, as the trainer sees it.</summary>
    public double? EtaSeconds { get; init; }

    /// <summary>How often training was started; above 1 a worker was lost and the job taken up again.</summary>
    public int Attempt { get; init; }

    public static JobProgress? From(FineTuningJob job) => job.Progress is not { ValueKind: JsonValueKind.Object } data ? null : new()
    {
        Step = (int?)Number(data, "step"),
        TotalSteps = (int?)Number(data, "total_steps"),
        Epoch = Number(data, "epoch"),
        TrainLoss = Number(data, "train_loss"),
        LearningRate = Number(data, "learning_rate"),
        TokensPerSecond = Number(data, "tokens_per_second"),
        Mfu = Number(data, "mfu"),
        MemoryBytes = (long?)Number(data, "memory_bytes"),
        DeviceMemoryBytes = (long?)Number(data, "device_memory_bytes"),
        DeviceMemoryPeakBytes = (long?)Number(data, "device_memory_peak_bytes"),
        EtaSeconds = Number(data, "eta_seconds"),
        Attempt = job.Attempt,
    };

    private static double? Number(JsonElement data, string name) =>
        data.TryGetProperty(name, out var value) && value.ValueKind is JsonValueKind.Number ? value.GetDouble() : null;
}

/// <summary>OpenAI's event of a job.</summary>
public sealed record EventObject
{
    public required string Id { get; init; }

    public string Object { get; init; } = "fine_tuning.job.event";

    public required long CreatedAt { get; init; }

    /// <summary>info, warn or error.</summary>
    public required TrainingEventLevel Level { get; init; }

    /// <summary>A sentence for people.</summary>
    public required string Message { get; init; }

    /// <summary>message or metrics.</summary>
    public required JobEventType Type { get; init; }

    /// <summary>
    /// Of metrics: step, total_steps, train_loss, train_mean_token_accuracy, valid_loss, learning_rate, mfu, memory_bytes, … Of a
    /// transition: status. Of all once training has begun: attempt.
    /// </summary>
    public required IReadOnlyDictionary<string, object> Data { get; init; }

    public static EventObject From(JobEvent row) => new()
    {
        Id = row.Id,
        CreatedAt = row.CreatedAt.ToUnixTimeSeconds(),
        Level = row.Level,
        Message = row.Message,
        Type = row.Type,
        Data = DataOf(row),
    };

    private static Dictionary<string, object> DataOf(JobEvent row)
    {
        var data = row.Data is { ValueKind: JsonValueKind.Object } given
            ? given.EnumerateObject().ToDictionary(member => member.Name, object (member) => member.Value)
            : [];
        if (row.State is { } state)
        {
            data["status"] = state;
        }

        if (row.Attempt > 0)
        {
            data["attempt"] = row.Attempt;
        }

        return data;
    }
}

/// <summary>OpenAI's checkpoint of a job: a step whose adapter is a model of its own.</summary>
public sealed record CheckpointObject
{
    public required string Id { get; init; }

    public string Object { get; init; } = "fine_tuning.job.checkpoint";

    public required long CreatedAt { get; init; }

    /// <summary>The id to chat with.</summary>
    public required string FineTunedModelCheckpoint { get; init; }

    public required int StepNumber { get; init; }

    public required string FineTuningJobId { get; init; }

    /// <summary>step, train_loss, valid_loss, … as far as they were measured.</summary>
    public required JsonElement Metrics { get; init; }

    public static CheckpointObject From(JobCheckpoint row) => new()
    {
        Id = row.Id,
        CreatedAt = row.CreatedAt.ToUnixTimeSeconds(),
        FineTunedModelCheckpoint = row.ModelName,
        StepNumber = row.StepNumber,
        FineTuningJobId = row.JobId,
        Metrics = row.Metrics ?? JsonSerializer.SerializeToElement(new { step = row.StepNumber }),
    };
}
