using Microsoft.EntityFrameworkCore;
using PeftServer.Core.Data;
using PeftServer.Engine.Training;

namespace PeftServer.Core.Jobs;

/// <summary>What a worker has free for one more job.</summary>
/// <param name="Devices">Devices without a job.</param>
/// <param name="MemoryBytes">Memory of the smallest of them; null: unknown, anything may be tried.</param>
public sealed record WorkerCapacity(int Devices, long? MemoryBytes);

/// <summary>What a renewal learned.</summary>
/// <param name="Held">False: stop, somebody has a newer epoch or the job is over.</param>
/// <param name="DesiredState">What the owner of the job wants it to become.</param>
public sealed record LeaseStatus(bool Held, JobState? DesiredState);

/// <summary>Who works on what: claims, renewals, and the sweep that finds what was dropped. Time is the database's.</summary>
public sealed class JobClaims(IDbContextFactory<PeftDbContext> contexts, JobWriter writer)
{
    /// <summary>A job that cost this many workers their life is failed.</summary>
    public const int MaxLostLeases = 3;

    /// <summary>Takes the job that has waited longest among those that fit, or returns null.</summary>
    public async Task<JobLease?> ClaimNextAsync(string owner, WorkerCapacity capacity, TimeSpan lease, CancellationToken cancellationToken)
    {
        await using var db = await contexts.CreateDbContextAsync(cancellationToken);
        await using var transaction = await db.Database.BeginTransactionAsync(cancellationToken);
        var claimed = await db.Jobs.FromSql($"""
            update jobs set
              state = 'running', lease_owner = {owner}, lease_epoch = lease_epoch + 1,
              lease_expires_at = clock_timestamp() + {lease}, attempt = attempt + 1,
              started_at = coalesce(started_at, clock_timestamp())
            where id = (
              select id from jobs
              where state = 'queued' and desired_state is null and gpus <= {capacity.Devices}
                and (memory_bytes is null or {capacity.MemoryBytes}::bigint is null or memory_bytes <= {capacity.MemoryBytes}::bigint)
              order by created_at, id
              for update skip locked limit 1)
            returning *
            """).AsTracking().ToListAsync(cancellationToken);
        if (claimed is not [var job])
        {
            return null;
        }

        var now = await db.Database.SqlQuery<DateTimeOffset>($"select clock_timestamp() as \"Value\"").SingleAsync(cancellationToken);
        new JobTransaction(db, job, now).Enter(
            JobState.Running,
            job.Attempt == 1 ? "Fine-tuning job started" : $"Fine-tuning job taken up again, attempt {job.Attempt}");
        await db.SaveChangesAsync(cancellationToken);
        await db.Database.ExecuteSqlAsync($"select pg_notify({JobSignals.Channel}, {job.Id})", cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return new JobLease(job.Id, job.LeaseEpoch, owner);
    }

    /// <summary>Takes a job whose files wait to be checked; null when another has it or there is nothing to check.</summary>
    public async Task<JobLease?> ClaimValidationAsync(string jobId, string owner, TimeSpan lease, CancellationToken cancellationToken)
    {
        await using var db = await contexts.CreateDbContextAsync(cancellationToken);
        var epochs = await db.Database.SqlQuery<long>($"""
            update jobs set
              lease_owner = {owner}, lease_epoch = lease_epoch + 1, lease_expires_at = clock_timestamp() + {lease}
            where id = {jobId} and state = 'validating_files'
              and (lease_expires_at is null or lease_expires_at < clock_timestamp())
            returning lease_epoch as "Value"
            """).ToListAsync(cancellationToken);
        return epochs is [var epoch] ? new JobLease(jobId, epoch, owner) : null;
    }

    /// <summary>
    /// Extends the lease. It succeeds after expiry too, and after the sweep put the job back, while nobody has taken it: a
    /// worker that was cut off from the database keeps what it has, and is no longer counted as lost.
    /// </summary>
    public async Task<LeaseStatus> RenewAsync(JobLease held, TimeSpan lease, CancellationToken cancellationToken)
    {
        await using var db = await contexts.CreateDbContextAsync(cancellationToken);
        var desired = await db.Database.SqlQuery<string>($"""
            update jobs set
              lease_owner = {held.Owner}, lease_expires_at = clock_timestamp() + {lease},
              state = case when state = 'queued' then 'running' else state end,
              lost_leases = case when state = 'queued' then greatest(lost_leases - 1, 0) else lost_leases end
            where id = {held.JobId} and lease_epoch = {held.Epoch} and state in ('validating_files', 'queued', 'running')
            returning coalesce(desired_state, '') as "Value"
            """).ToListAsync(cancellationToken);
        return desired is [var state]
            ? new LeaseStatus(Held: true, JsonConversion.Named<JobState>(state))
            : new LeaseStatus(Held: false, DesiredState: null);
    }

    /// <summary>The job as it is now, whatever its project. Throws when there is none.</summary>
    public async Task<FineTuningJob> LoadAsync(string jobId, CancellationToken cancellationToken)
    {
        await using var db = await contexts.CreateDbContextAsync(cancellationToken);
        return await db.Jobs.AsNoTracking().SingleAsync(job => job.Id == jobId, cancellationToken);
    }

    /// <summary>What the owner of the job wants it to become; read when something was signalled.</summary>
    public async Task<JobState?> DesiredStateAsync(string jobId, CancellationToken cancellationToken)
    {
        await using var db = await contexts.CreateDbContextAsync(cancellationToken);
        return await db.Jobs.Where(job => job.Id == jobId).Select(job => job.DesiredState).SingleOrDefaultAsync(cancellationToken);
    }

    /// <summary>Gives a running job back whole, so that any worker may go on with it at once.</summary>
    public Task HandBackAsync(JobLease held, CancellationToken cancellationToken) =>
        writer.WriteAsync(held, transaction => transaction.Queue("The worker stops; the job waits for another"), cancellationToken);

    /// <summary>Gives up a validation that was not finished, so that any worker may begin it at once.</summary>
    public async Task ReleaseValidationAsync(JobLease held, CancellationToken cancellationToken)
    {
        await using var db = await contexts.CreateDbContextAsync(cancellationToken);
        await db.Database.ExecuteSqlAsync($"""
            update jobs set lease_owner = null, lease_expires_at = null
            where id = {held.JobId} and lease_epoch = {held.Epoch} and state = 'validating_files'
            """, cancellationToken);
    }

    /// <summary>
    /// Ends what expired: running jobs wait again (or are cancelled, if that was asked; or failed, if they keep killing
    /// their workers). Returns how many. A database that has just come back is given one lease first, in which living
    /// workers renew theirs.
    /// </summary>
    public async Task<int> SweepAsync(TimeSpan lease, CancellationToken cancellationToken)
    {
        var ids = await ExpiredAsync(lease, cancellationToken);
        var ended = 0;
        foreach (var id in ids)
        {
            ended += await writer.LockedAsync(id, transaction => Task.FromResult(End(transaction)), cancellationToken) ? 1 : 0;
        }

        return ended;
    }

    /// <summary>Jobs that wait for an alarm: to be validated (not held by anybody), and to be trained.</summary>
    public async Task<(IReadOnlyList<string> Validation, int Training)> WaitingAsync(TimeSpan olderThan, CancellationToken cancellationToken)
    {
        await using var db = await contexts.CreateDbContextAsync(cancellationToken);
        var validation = await db.Database.SqlQuery<string>($"""
            select id as "Value" from jobs
            where state = 'validating_files' and created_at < clock_timestamp() - {olderThan}
              and (lease_expires_at is null or lease_expires_at < clock_timestamp())
            """).ToListAsync(cancellationToken);
        var training = await db.Jobs.CountAsync(job => job.State == JobState.Queued && job.DesiredState == null, cancellationToken);
        return (validation, training);
    }

    private async Task<List<string>> ExpiredAsync(TimeSpan lease, CancellationToken cancellationToken)
    {
        await using var db = await contexts.CreateDbContextAsync(cancellationToken);
        return await db.Database.SqlQuery<string>($"""
            select id as "Value" from jobs
            where state = 'running' and lease_expires_at < clock_timestamp()
              and pg_postmaster_start_time() < clock_timestamp() - {lease}
            """).ToListAsync(cancellationToken);
    }

    private static bool End(JobTransaction transaction)
    {
        var job = transaction.Job;
        if (job.State is not JobState.Running || job.LeaseExpiresAt > transaction.Now)
        {
            return false; // renewed or ended since it was listed
        }

        job.LostLeases++;
        if (job.DesiredState is JobState.Cancelled)
        {
            transaction.Cancel();
        }
        else if (job.DesiredState is JobState.Paused)
        {
            transaction.Pause();
        }
        else if (job.LostLeases >= MaxLostLeases)
        {
            transaction.Fail(new JobError(
                "worker_crash_loop",
                $"{job.LostLeases} workers vanished while they ran this job. Does it need more memory than the hosts have?"));
        }
        else
        {
            transaction.Say("The worker vanished; the job waits for another", TrainingEventLevel.Warn);
            transaction.Wait("The job waits to be taken up again");
        }

        return true;
    }
}
