namespace PeftServer.Core.Jobs;

/// <summary>A worker's right to write one job, for as long as nobody took a newer epoch.</summary>
public sealed record JobLease(string JobId, long Epoch, string Owner);

/// <summary>Somebody else has the job, or it is over: whoever sees this stops its trainer and writes nothing more.</summary>
public sealed class LeaseLostException(JobLease lease)
    : InvalidOperationException($"Job {lease.JobId} is no longer held under epoch {lease.Epoch}.")
{
    public JobLease Lease { get; } = lease;
}
