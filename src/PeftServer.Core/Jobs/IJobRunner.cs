using System.ComponentModel;
using Hangfire;
using Hangfire.Server;

namespace PeftServer.Core.Jobs;

/// <summary>
/// What Hangfire calls on a worker. It is the alarm clock: what there is to do is in the rows, so an alarm that rings twice,
/// late or never costs nothing but time.
/// </summary>
public interface IJobRunner
{
    /// <summary>Checks the files of one job.</summary>
    [Queue(JobAlarms.Validate), AutomaticRetry(Attempts = 0), DisplayName("Validate the files of {0}")]
    Task ValidateAsync(string jobId, CancellationToken cancellationToken);

    /// <summary>
    /// One job waits: takes the best that fits and trains it to its end. Ends as the job ends: throws when it failed.
    /// <paramref name="context"/> is Hangfire's to fill in.
    /// </summary>
    [Queue(JobAlarms.Train), AutomaticRetry(Attempts = 0), DisplayName("Train the next job in the queue")]
    Task TrainNextAsync(PerformContext? context, CancellationToken cancellationToken);
}
