using System.Text.Json;
using PeftServer.Engine.Adapters;
using PeftServer.Engine.Training;

namespace PeftServer.Core.Jobs;

/// <summary>
/// A fine-tuning job: what was asked for, who works on it, how far it came. The row is the truth; whoever holds a lease of
/// the current epoch may write it, through <see cref="JobTransaction"/>.
/// </summary>
public sealed class FineTuningJob
{
    public string Id { get; init; } = PublicId.NewJob();

    public string ProjectId { get; init; } = Tenancy.DefaultProject;

    /// <summary>Name of the base model.</summary>
    public required string BaseModel { get; init; }

    /// <summary>Name of the fine-tuned model whose adapter training goes on from; null: it starts anew.</summary>
    public string? StartingModel { get; init; }

    public required string TrainingFile { get; init; }

    public string? ValidationFile { get; init; }

    /// <summary>The method and its settings. What is "auto" has a default here until the files are known.</summary>
    public required AdapterConfig Peft { get; set; }

    /// <summary>What is learnt from the rows, with its settings.</summary>
    public TrainingMethod Method { get; init; } = new();

    /// <summary>How to train. What is "auto" has a default here until the files are known.</summary>
    public required TrainingArguments Training { get; set; }

    /// <summary>Settings that are "auto" and not yet picked, as <see cref="Engine.Training.AutoSettings"/> knows them.</summary>
    public IReadOnlyList<string> AutoSettings { get; set; } = [];

    /// <summary>1 to 64 characters in the name of the model that comes out.</summary>
    public string? Suffix { get; init; }

    public int Seed { get; init; }

    public IReadOnlyDictionary<string, string>? Metadata { get; init; }

    /// <summary>The body of the request as the client sent it: <c>method</c> and the like are echoed from here.</summary>
    public required string Request { get; init; }

    /// <summary>Sha256 of the request in hex; a client that repeats itself after a lost answer is known by it.</summary>
    public string? RequestSha256 { get; init; }

    /// <summary>The client's <c>Idempotency-Key</c>: a second job with it is the first one.</summary>
    public string? IdempotencyKey { get; init; }

    /// <summary>Devices that the job needs at once; a CPU counts as one.</summary>
    public int Gpus { get; init; } = 1;

    /// <summary>Estimate of the device memory it needs; null: fits anywhere.</summary>
    public long? MemoryBytes { get; init; }

    public DateTimeOffset CreatedAt { get; private set; }

    public DateTimeOffset? StartedAt { get; internal set; }

    public DateTimeOffset? FinishedAt { get; internal set; }

    public JobState State { get; internal set; } = JobState.ValidatingFiles;

    /// <summary>What its owner wants it to become (<c>cancelled</c>, <c>paused</c>); the worker sees to it.</summary>
    public JobState? DesiredState { get; internal set; }

    /// <summary>The worker that has the job, by a name for people.</summary>
    public string? LeaseOwner { get; internal set; }

    /// <summary>Raised by every claim; writes of an older epoch change nothing.</summary>
    public long LeaseEpoch { get; internal set; }

    /// <summary>By the database's clock.</summary>
    public DateTimeOffset? LeaseExpiresAt { get; internal set; }

    /// <summary>How often training was started, from 1.</summary>
    public int Attempt { get; internal set; }

    /// <summary>How often a worker vanished with the job. A job that keeps killing its workers is failed.</summary>
    public int LostLeases { get; internal set; }

    /// <summary>The runs folder (by its id) that holds the run of the last attempt.</summary>
    public string? RunStore { get; internal set; }

    /// <summary>The attempt under which that run lies there.</summary>
    public int RunAttempt { get; internal set; }

    /// <summary>Bytes of that run's events.jsonl that are in the database.</summary>
    public long EventsOffset { get; internal set; }

    /// <summary>Number of the newest event; counted up under the row's lock.</summary>
    public int LastEventNumber { get; internal set; }

    /// <summary>The data of the newest metrics event: step, total_steps, train_loss, eta_seconds, …</summary>
    public JsonElement? Progress { get; internal set; }

    /// <summary>Tokens that counted in the loss, when the job is done.</summary>
    public long? TrainedTokens { get; internal set; }

    /// <summary>Name of the model that came out.</summary>
    public string? FineTunedModel { get; internal set; }

    /// <summary>Files that came out, by id.</summary>
    public List<string> ResultFiles { get; private set; } = [];

    public string? ErrorCode { get; internal set; }

    public string? ErrorMessage { get; internal set; }

    public string? ErrorParam { get; internal set; }

    /// <summary>Null unless the job failed.</summary>
    public JobError? Error => ErrorCode is null ? null : new JobError(ErrorCode, ErrorMessage ?? "", ErrorParam);

    /// <summary>What follows <c>ftjob-</c>: the last part of the model's name.</summary>
    public string ShortId => Id[(Id.IndexOf('-', StringComparison.Ordinal) + 1)..];
}
