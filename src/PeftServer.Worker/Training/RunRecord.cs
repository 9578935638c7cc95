using System.Text.Json;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;
using PeftServer.Core.Data;
using PeftServer.Core.Files;
using PeftServer.Core.Jobs;
using PeftServer.Core.Models;
using PeftServer.Core.Storage;
using PeftServer.Engine.Training;

namespace PeftServer.Worker.Training;

/// <summary>Brings what a run says and makes into the database and the store. A database that is away is waited for.</summary>
internal sealed partial class RunRecord(
    JobWriter writer, JobClaims claims, JobStore jobs, AdapterFolders adapters, IArtifactStore store,
    IOptions<ModelsOptions> options, TimeProvider clock, ILogger<RunRecord> logger)
{
    private static readonly TimeSpan Pause = TimeSpan.FromMilliseconds(500);

    /// <summary>
    /// Stores the whole lines of <paramref name="events"/> that are not stored yet; how far it came is committed with them.
    /// Returns the outcome, if the trainer has told one.
    /// </summary>
    public async Task<TrainingEvent?> StoreEventsAsync(JobLease lease, EventsFile events, CancellationToken cancellationToken)
    {
        while (true)
        {
            var (from, batch) = (0L, new EventBatch([], 0, Final: null));
            await WriteAsync(
                lease,
                transaction =>
                {
                    from = transaction.Job.EventsOffset;
                    batch = events.Read(from);
                    Record(transaction, batch);
                },
                cancellationToken);
            if (batch.End == from || batch.Final is not null)
            {
                return batch.Final;
            }
        }
    }

    public Task BeginRunAsync(JobLease lease, string runStore, CancellationToken cancellationToken) =>
        WriteAsync(lease, transaction => transaction.BeginRun(runStore), cancellationToken);

    public Task FailAsync(JobLease lease, JobError error, CancellationToken cancellationToken) =>
        WriteAsync(lease, transaction => transaction.Fail(error), cancellationToken);

    public Task CancelAsync(JobLease lease, CancellationToken cancellationToken) =>
        WriteAsync(lease, transaction => transaction.Cancel(), cancellationToken);

    public Task HandBackAsync(JobLease lease, CancellationToken cancellationToken) =>
        PatientlyAsync(() => claims.HandBackAsync(lease, cancellationToken), cancellationToken);

    /// <summary>Stores the adapter's files, then publishes model and success in one transaction. Twice is as good as once.</summary>
    public async Task PublishAsync(JobLease lease, RunFolder run, TrainingEvent succeeded, CancellationToken cancellationToken)
    {
        var manifest = await adapters.PutAsync(run.Adapter, cancellationToken);
        var results = await ResultsAsync(lease.JobId, cancellationToken);
        var tokens = succeeded.Data?.GetValueOrDefault("trained_tokens") is { ValueKind: JsonValueKind.Number } number ? number.GetInt64() : 0;
        await PatientlyAsync(
            () => writer.WriteAsync(
                lease,
                transaction => transaction.SucceedAsync(manifest, transaction.Job.Peft.PeftType, NameOf(transaction.Job), tokens, cancellationToken, results),
                cancellationToken),
            cancellationToken);
    }

    public Task PauseAsync(JobLease lease, CancellationToken cancellationToken) =>
        WriteAsync(lease, transaction => transaction.Pause(), cancellationToken);

    /// <summary>The file of the job's metrics; its bytes are in the store, its row comes with the success.</summary>
    private async Task<StoredFile> ResultsAsync(string jobId, CancellationToken cancellationToken)
    {
        IReadOnlyList<JobEvent> events = [];
        await PatientlyAsync(async () => events = await jobs.EventsAfterAsync(jobId, 0, int.MaxValue, cancellationToken), cancellationToken);
        using var content = new MemoryStream(JobResults.Csv(events));
        var blob = await store.PutAsync(content, long.MaxValue, cancellationToken);
        return new StoredFile { Filename = JobResults.FileName, Purpose = JobResults.Purpose, Bytes = blob.Bytes, Sha256 = blob.Sha256 };
    }

    private Task WriteAsync(JobLease lease, Action<JobTransaction> write, CancellationToken cancellationToken) =>
        PatientlyAsync(() => writer.WriteAsync(lease, write, cancellationToken), cancellationToken);

    private static void Record(JobTransaction transaction, EventBatch batch)
    {
        foreach (var line in batch.Events)
        {
            transaction.Relay(line);
        }

        transaction.AdvanceEvents(batch.End);
    }

    private string NameOf(FineTuningJob job) =>
        FineTunedModel.NameOf(job.BaseModel, options.Value.Organization, job.Suffix, job.ShortId);

    // Each write checks the row first, so one whose answer was lost is not done twice.
    private async Task PatientlyAsync(Func<Task> write, CancellationToken cancellationToken)
    {
        while (true)
        {
            try
            {
                await write();
                return;
            }
            catch (Exception e) when (DatabaseFaults.IsPassing(e) && !cancellationToken.IsCancellationRequested)
            {
                Waiting(logger, e.Message);
                await Task.Delay(Pause, clock, cancellationToken);
            }
        }
    }

    [LoggerMessage(LogLevel.Warning, "The database is away, the run goes on: {Reason}")]
    private static partial void Waiting(ILogger logger, string reason);
}
