using System.Text.Json;
using Microsoft.EntityFrameworkCore;
using PeftServer.Core.Data;
using PeftServer.Core.Files;
using PeftServer.Core.Models;
using PeftServer.Core.Storage;
using PeftServer.Engine.Training;

namespace PeftServer.Core.Jobs;

/// <summary>
/// What may be written about a job while its row is locked. Everything said here is committed together, under event numbers
/// that follow each other, or not at all.
/// </summary>
public sealed class JobTransaction
{
    private readonly PeftDbContext _db;

    internal JobTransaction(PeftDbContext db, FineTuningJob job, DateTimeOffset now) => (_db, Job, Now) = (db, job, now);

    public FineTuningJob Job { get; }

    /// <summary>By the database's clock, read under the lock.</summary>
    public DateTimeOffset Now { get; }

    /// <summary>A sentence for the job's owner.</summary>
    public void Say(string message, TrainingEventLevel level = TrainingEventLevel.Info) =>
        Add(JobEventType.Message, level, message, data: null, state: null, Job.Attempt);

    /// <summary>What the trainer of the current run said, or of a former one whose last words are still to be stored.</summary>
    public void Relay(TrainingEvent said)
    {
        if (said is not { Type: TrainingEventType.Metrics, Data: { } numbers })
        {
            Add(JobEventType.Message, said.Level, said.Message, data: null, state: null, Job.RunAttempt);
            return;
        }

        Job.Progress = ForeignText.Clean(JsonSerializer.SerializeToElement(numbers));
        Add(JobEventType.Metrics, said.Level, said.Message, Job.Progress, state: null, Job.RunAttempt);
    }

    /// <summary>
    /// The files were in order, or the worker gives the job back: it waits for the next one. The lease ends with this write:
    /// a renewal that is still under way must not take the job again.
    /// </summary>
    public void Queue(string message = "Files validated, moving job to queued state")
    {
        Job.LeaseEpoch++;
        Wait(message);
    }

    /// <summary>The worker is silent. It keeps the epoch, and so the right to go on, until somebody else takes the job.</summary>
    internal void Wait(string message)
    {
        Job.LeaseOwner = null;
        Job.LeaseExpiresAt = null;
        Enter(JobState.Queued, message);
    }

    /// <summary>The end without a model.</summary>
    public void Fail(JobError error)
    {
        Job.ErrorCode = error.Code;
        Job.ErrorMessage = ForeignText.Clean(error.Message);
        Job.ErrorParam = error.Param;
        Finish(JobState.Failed, $"The job failed: {error.Message}", TrainingEventLevel.Error);
    }

    /// <summary>The job rests until its owner resumes it; what was trained lies where its run is.</summary>
    public void Pause()
    {
        Job.DesiredState = null;
        Job.LeaseEpoch++; // a renewal that is still under way must not take the job again
        Job.LeaseOwner = null;
        Job.LeaseExpiresAt = null;
        Enter(JobState.Paused, Job.Progress is null ? "The job is paused" : "The job is paused; it goes on from its last checkpoint when it is resumed");
    }

    /// <summary>What "auto" came to, told with its reasons, once the files are known.</summary>
    public void Resolve(AutoPicks picks)
    {
        (Job.Training, Job.Peft) = (picks.Training, picks.Peft);
        Job.AutoSettings = [];
        foreach (var reason in picks.Reasons)
        {
            Say(reason);
        }
    }

    public void Cancel() => Finish(JobState.Cancelled, "The job was cancelled");

    /// <summary>The run of this attempt begins, with an empty events file.</summary>
    public void BeginRun(string runStore) =>
        (Job.RunStore, Job.RunAttempt, Job.EventsOffset) = (runStore, Job.Attempt, 0);

    /// <summary>Marks how far the run's events file is stored.</summary>
    public void AdvanceEvents(long offset) => Job.EventsOffset = offset;

    /// <summary>
    /// The end with a model: its adapter, its name, the file of its metrics and the state in one commit. The same bytes published again are the row
    /// that is there.
    /// </summary>
    public async Task SucceedAsync(
        AdapterManifest manifest, string peftType, string modelName, long trainedTokens, CancellationToken cancellationToken, StoredFile? results = null)
    {
        await RegisterAsync(manifest, peftType, cancellationToken);
        _db.Models.Add(new FineTunedModel
        {
            Name = modelName,
            ProjectId = Job.ProjectId,
            BaseModel = Job.BaseModel,
            AdapterDigest = manifest.Digest,
            JobId = Job.Id,
            IsFinal = true,
        });
        if (results is not null)
        {
            _db.Files.Add(results);
            Job.ResultFiles.Add(results.Id);
        }

        Job.FineTunedModel = modelName;
        Job.TrainedTokens = trainedTokens;
        Say($"New fine-tuned model created: {modelName}");
        Finish(JobState.Succeeded, "The job has successfully completed");
    }

    /// <summary>Adds the adapter's row unless it is there.</summary>
    public Task RegisterAsync(AdapterManifest manifest, string peftType, CancellationToken cancellationToken)
    {
        var files = JsonSerializer.Serialize(manifest.Files, Engine.PeftJson.Options);
        return _db.Database.ExecuteSqlAsync($"""
            insert into adapters (digest, peft_type, bytes, files)
            values ({manifest.Digest}, {peftType}, {manifest.Bytes}, {files}::jsonb)
            on conflict (digest) do nothing
            """, cancellationToken);
    }

    internal void Enter(JobState state, string message, TrainingEventLevel level = TrainingEventLevel.Info)
    {
        Job.State = state;
        Add(JobEventType.Message, level, message, data: null, state, Job.Attempt);
    }

    private void Finish(JobState state, string message, TrainingEventLevel level = TrainingEventLevel.Info)
    {
        Job.FinishedAt = Now;
        Job.DesiredState = null;
        Job.LeaseOwner = null;
        Job.LeaseExpiresAt = null;
        Enter(state, message, level);
    }

    private void Add(JobEventType type, TrainingEventLevel level, string message, JsonElement? data, JobState? state, int attempt) =>
        _db.Events.Add(new JobEvent
        {
            JobId = Job.Id,
            ProjectId = Job.ProjectId,
            Number = ++Job.LastEventNumber,
            CreatedAt = Now,
            Type = type,
            Level = level,
            Message = ForeignText.Clean(message),
            Data = data,
            Attempt = attempt,
            State = state,
        });
}
