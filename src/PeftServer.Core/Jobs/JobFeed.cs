using System.Runtime.CompilerServices;

namespace PeftServer.Core.Jobs;

/// <summary>The events of a job as they happen, from the rows: any process can follow, from any number on.</summary>
public sealed class JobFeed(JobStore jobs, JobSignals signals)
{
    private const int BatchSize = 500;

    /// <summary>
    /// Every event after <paramref name="number"/>, each once and in order; ends behind the one that ends the job. Waits
    /// forever for a job that does not exist: look it up first.
    /// </summary>
    public async IAsyncEnumerable<JobEvent> FollowAsync(string jobId, int number, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        using var subscription = signals.Subscribe(jobId);
        while (true)
        {
            var batch = await jobs.EventsAfterAsync(jobId, number, BatchSize, cancellationToken);
            foreach (var row in batch)
            {
                yield return row;
                number = row.Number;
                if (row.State?.IsFinal ?? false)
                {
                    yield break;
                }
            }

            if (batch.Count < BatchSize)
            {
                await subscription.WaitAsync(cancellationToken);
            }
        }
    }
}
