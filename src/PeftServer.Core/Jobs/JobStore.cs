using System.Text.Json;
using Microsoft.EntityFrameworkCore;
using Npgsql;
using PeftServer.Core.Data;

namespace PeftServer.Core.Jobs;

/// <summary>Jobs as their owners see them: created, listed, cancelled, followed. Every call is within one project.</summary>
public sealed class JobStore(IDbContextFactory<PeftDbContext> contexts, JobWriter writer)
{
    /// <summary>
    /// Stores the job and its first events. With an idempotency key that is known, the job that has it is returned and
    /// nothing is stored. The caller then rings <see cref="JobAlarms.EnqueueValidation"/>; if that is lost, a sweep does it.
    /// </summary>
    public async Task<FineTuningJob> CreateAsync(FineTuningJob job, CancellationToken cancellationToken)
    {
        await using var db = await contexts.CreateDbContextAsync(cancellationToken);
        db.Jobs.Add(job); // a cold process builds its model here, which takes seconds: not while a transaction is open
        await using var transaction = await db.Database.BeginTransactionAsync(cancellationToken);
        var now = await db.Database.SqlQuery<DateTimeOffset>($"select clock_timestamp() as \"Value\"").SingleAsync(cancellationToken);
        var first = new JobTransaction(db, job, now);
        first.Say($"Created fine-tuning job: {job.Id}");
        first.Enter(JobState.ValidatingFiles, $"Validating training file: {Files(job)}");
        try
        {
            await db.SaveChangesAsync(cancellationToken);
        }
        catch (DbUpdateException e) when (job.IdempotencyKey is not null && e.InnerException is PostgresException { SqlState: PostgresErrorCodes.UniqueViolation })
        {
            await transaction.RollbackAsync(cancellationToken);
            return await db.Jobs.AsNoTracking().SingleAsync(
                other => other.ProjectId == job.ProjectId && other.IdempotencyKey == job.IdempotencyKey, cancellationToken);
        }

        await db.Database.ExecuteSqlAsync($"select pg_notify({JobSignals.Channel}, {job.Id})", cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return job;
    }

    public async Task<FineTuningJob?> FindAsync(string projectId, string jobId, CancellationToken cancellationToken)
    {
        await using var db = await contexts.CreateDbContextAsync(cancellationToken);
        return await db.Jobs.AsNoTracking().SingleOrDefaultAsync(job => job.Id == jobId && job.ProjectId == projectId, cancellationToken);
    }

    /// <summary>The newest job that came of the same request within <paramref name="window"/>: a client that lost the answer asks again.</summary>
    public async Task<FineTuningJob?> FindRecentAsync(string projectId, string requestSha256, TimeSpan window, CancellationToken cancellationToken)
    {
        await using var db = await contexts.CreateDbContextAsync(cancellationToken);
        return await db.Jobs
            .FromSql($"select * from jobs where project_id = {projectId} and request_sha256 = {requestSha256} and created_at > now() - {window}")
            .AsNoTracking().OrderByDescending(job => job.CreatedAt).FirstOrDefaultAsync(cancellationToken);
    }

    /// <summary>
    /// Newest first, from behind the job <paramref name="after"/>; null when there is no such job.
    /// <paramref name="metadata"/>: only jobs that carry all of these pairs; an empty one: only jobs without metadata.
    /// </summary>
    public async Task<Page<FineTuningJob>?> ListAsync(
        string projectId, string? after, int limit, IReadOnlyDictionary<string, string>? metadata, CancellationToken cancellationToken)
    {
        await using var db = await contexts.CreateDbContextAsync(cancellationToken);
        var pairs = metadata is null or { Count: 0 } ? null : JsonSerializer.Serialize(metadata, Engine.PeftJson.Options);
        var jobs = pairs is null
            ? db.Jobs.Where(job => metadata == null || job.Metadata == null)
            : db.Jobs.FromSql($"select * from jobs where metadata @> {pairs}::jsonb");
        jobs = jobs.AsNoTracking().Where(job => job.ProjectId == projectId);
        if (after is not null)
        {
            if (await FindAsync(projectId, after, cancellationToken) is not { } last)
            {
                return null;
            }

            jobs = jobs.Where(job => EF.Functions.LessThan(
                ValueTuple.Create(job.CreatedAt, job.Id), ValueTuple.Create(last.CreatedAt, last.Id)));
        }

        return Page<FineTuningJob>.Of(
            await jobs.OrderByDescending(job => job.CreatedAt).ThenByDescending(job => job.Id).Take(limit + 1).ToListAsync(cancellationToken),
            limit);
    }

    /// <summary>
    /// Cancels: a job that no worker runs at once, a running one through its worker (within 2 s). Returns the job as it is
    /// now, with <c>Accepted</c> false when it was over already; null when there is none.
    /// </summary>
    public Task<(FineTuningJob Job, bool Accepted)?> CancelAsync(string projectId, string jobId, CancellationToken cancellationToken) =>
        ChangeAsync(projectId, jobId, TryCancel, cancellationToken);

    /// <summary>
    /// Pauses: a job that waits at once, a running one through its worker, which has it write a checkpoint. Returns the job as it is now, with <c>Accepted</c>
    /// false when it is over or its files are still checked; null when there is none.
    /// </summary>
    public Task<(FineTuningJob Job, bool Accepted)?> PauseAsync(string projectId, string jobId, CancellationToken cancellationToken) =>
        ChangeAsync(projectId, jobId, TryPause, cancellationToken);

    /// <summary>
    /// Lets a paused job wait for a worker again; the caller then rings <see cref="JobAlarms.EnqueueTraining"/>. A pause that has not come about yet is taken back.
    /// </summary>
    public Task<(FineTuningJob Job, bool Accepted)?> ResumeAsync(string projectId, string jobId, CancellationToken cancellationToken) =>
        ChangeAsync(projectId, jobId, TryResume, cancellationToken);

    /// <summary>OpenAI's list: newest first, from behind the event <paramref name="after"/>; null when there is no such event.</summary>
    public async Task<Page<JobEvent>?> ListEventsAsync(string jobId, string? after, int limit, CancellationToken cancellationToken)
    {
        await using var db = await contexts.CreateDbContextAsync(cancellationToken);
        var events = db.Events.AsNoTracking().Where(row => row.JobId == jobId);
        if (after is not null)
        {
            if (await events.SingleOrDefaultAsync(row => row.Id == after, cancellationToken) is not { } last)
            {
                return null;
            }

            events = events.Where(row => row.Number < last.Number);
        }

        return Page<JobEvent>.Of(
            await events.OrderByDescending(row => row.Number).Take(limit + 1).ToListAsync(cancellationToken), limit);
    }

    /// <summary>In the order they happened, from the one after <paramref name="number"/> on.</summary>
    public async Task<IReadOnlyList<JobEvent>> EventsAfterAsync(string jobId, int number, int limit, CancellationToken cancellationToken)
    {
        await using var db = await contexts.CreateDbContextAsync(cancellationToken);
        return await db.Events.AsNoTracking()
            .Where(row => row.JobId == jobId && row.Number > number)
            .OrderBy(row => row.Number).Take(limit).ToListAsync(cancellationToken);
    }

    /// <summary>Newest first, from behind the checkpoint <paramref name="after"/>; null when there is no such checkpoint.</summary>
    public async Task<Page<JobCheckpoint>?> ListCheckpointsAsync(string jobId, string? after, int limit, CancellationToken cancellationToken)
    {
        await using var db = await contexts.CreateDbContextAsync(cancellationToken);
        var checkpoints = db.Checkpoints.AsNoTracking().Where(row => row.JobId == jobId);
        if (after is not null)
        {
            if (await checkpoints.SingleOrDefaultAsync(row => row.Id == after, cancellationToken) is not { } last)
            {
                return null;
            }

            checkpoints = checkpoints.Where(row => row.StepNumber < last.StepNumber);
        }

        return Page<JobCheckpoint>.Of(
            await checkpoints.OrderByDescending(row => row.StepNumber).Take(limit + 1).ToListAsync(cancellationToken), limit);
    }

    private static string Files(FineTuningJob job) =>
        job.ValidationFile is null ? job.TrainingFile : $"{job.TrainingFile} and validation file: {job.ValidationFile}";

    private async Task<(FineTuningJob Job, bool Accepted)?> ChangeAsync(
        string projectId, string jobId, Func<JobTransaction, bool> change, CancellationToken cancellationToken)
    {
        (FineTuningJob, bool)? outcome = null;
        await writer.LockedAsync(
            jobId,
            transaction =>
            {
                if (transaction.Job.ProjectId != projectId)
                {
                    return Task.FromResult(false);
                }

                var accepted = change(transaction);
                outcome = (transaction.Job, accepted);
                return Task.FromResult(accepted);
            },
            cancellationToken);
        return outcome;
    }

    private static bool TryPause(JobTransaction transaction)
    {
        switch (transaction.Job.State)
        {
            case JobState.Queued:
                transaction.Pause();
                return true;
            case JobState.Running when transaction.Job.DesiredState is null or JobState.Paused:
                transaction.Job.DesiredState = JobState.Paused; // its worker is told by NOTIFY and by every renewal
                return true;
            default:
                return false;
        }
    }

    private static bool TryResume(JobTransaction transaction)
    {
        switch (transaction.Job.State)
        {
            case JobState.Paused:
                transaction.Queue("The job is resumed and waits for a worker");
                return true;
            case JobState.Running when transaction.Job.DesiredState is JobState.Paused:
                transaction.Job.DesiredState = null;
                return true;
            default:
                return false;
        }
    }

    private static bool TryCancel(JobTransaction transaction)
    {
        switch (transaction.Job.State)
        {
            case JobState.Succeeded or JobState.Failed or JobState.Cancelled:
                return false;
            case JobState.Running:
                transaction.Job.DesiredState = JobState.Cancelled; // its worker is told by NOTIFY and by every renewal
                return true;
            default:
                transaction.Cancel();
                return true;
        }
    }
}
