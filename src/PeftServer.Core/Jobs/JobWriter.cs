using Microsoft.EntityFrameworkCore;
using PeftServer.Core.Data;

namespace PeftServer.Core.Jobs;

/// <summary>The only way to change a job: one transaction that first locks its row and checks the epoch.</summary>
public sealed class JobWriter(IDbContextFactory<PeftDbContext> contexts)
{
    /// <summary>
    /// Runs <paramref name="write"/> on the locked row and commits. Throws <see cref="LeaseLostException"/> when the lease
    /// is no longer the newest or the job is over; then nothing was written.
    /// </summary>
    public Task WriteAsync(JobLease lease, Action<JobTransaction> write, CancellationToken cancellationToken) =>
        WriteAsync(
            lease,
            transaction =>
            {
                write(transaction);
                return Task.CompletedTask;
            },
            cancellationToken);

    public async Task WriteAsync(JobLease lease, Func<JobTransaction, Task> write, CancellationToken cancellationToken)
    {
        var held = await LockedAsync(
            lease.JobId,
            async transaction =>
            {
                if (transaction.Job.LeaseEpoch != lease.Epoch || transaction.Job.State.IsFinal)
                {
                    return false;
                }

                await write(transaction);
                return true;
            },
            cancellationToken);
        if (!held)
        {
            throw new LeaseLostException(lease);
        }
    }

    /// <summary>
    /// Locks the row whoever holds it and commits when <paramref name="write"/> returns true. Returns false when it did not,
    /// or when there is no such job.
    /// </summary>
    internal async Task<bool> LockedAsync(string jobId, Func<JobTransaction, Task<bool>> write, CancellationToken cancellationToken)
    {
        await using var db = await contexts.CreateDbContextAsync(cancellationToken);
        await using var transaction = await db.Database.BeginTransactionAsync(cancellationToken);
        var rows = await db.Jobs.FromSql($"select * from jobs where id = {jobId} for update").AsTracking().ToListAsync(cancellationToken);
        if (rows is not [var job])
        {
            return false;
        }

        var now = await db.Database.SqlQuery<DateTimeOffset>($"select clock_timestamp() as \"Value\"").SingleAsync(cancellationToken);
        if (!await write(new JobTransaction(db, job, now)))
        {
            return false;
        }

        await db.SaveChangesAsync(cancellationToken);
        await db.Database.ExecuteSqlAsync($"select pg_notify({JobSignals.Channel}, {jobId})", cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return true;
    }
}
