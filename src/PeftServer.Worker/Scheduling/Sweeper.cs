using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;
using PeftServer.Core.Data;
using PeftServer.Core.Jobs;
using PeftServer.Core.Storage;
using PeftServer.Worker.Training;

namespace PeftServer.Worker.Scheduling;

/// <summary>
/// Finds what was dropped: jobs whose worker vanished, and waiting jobs whose alarm was lost. Every worker sweeps; two at
/// once do no harm, since each row is looked at again under its lock.
/// </summary>
internal sealed partial class Sweeper(
    JobClaims claims, JobAlarms alarms, RunFolders runs, ArtifactCollector artifacts, IOptions<WorkerOptions> options, TimeProvider clock,
    ILogger<Sweeper> logger)
    : BackgroundService
{
    private static readonly TimeSpan HousekeepingPeriod = TimeSpan.FromHours(1);
    private long _connected = clock.GetTimestamp();
    private long? _tidied;

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        using var timer = new PeriodicTimer(TimeSpan.FromSeconds(options.Value.SweepSeconds), clock);
        try
        {
            do
            {
                await SweepAsync(stoppingToken);
            }
            while (await timer.WaitForNextTickAsync(stoppingToken));
        }
        catch (OperationCanceledException) when (stoppingToken.IsCancellationRequested)
        {
            // The worker stops.
        }
    }

    private async Task SweepAsync(CancellationToken cancellationToken)
    {
        try
        {
            // After an outage the leases of living workers have run out as well: they get one lease's time to renew them.
            if (clock.GetElapsedTime(_connected) >= options.Value.Lease)
            {
                var ended = await claims.SweepAsync(options.Value.Lease, cancellationToken);
                if (ended > 0)
                {
                    Ended(logger, ended);
                }
            }

            await RingAsync(cancellationToken);
            await TidyAsync(cancellationToken);
        }
        catch (Exception e) when (DatabaseFaults.IsPassing(e))
        {
            _connected = clock.GetTimestamp();
            Away(logger, e.Message);
        }
        catch (Exception e) when (e is not OperationCanceledException)
        {
            Failed(logger, e);
        }
    }

    private async Task RingAsync(CancellationToken cancellationToken)
    {
        var (validation, training) = await claims.WaitingAsync(TimeSpan.FromSeconds(options.Value.SweepSeconds), cancellationToken);
        if (validation.Count > alarms.Waiting(JobAlarms.Validate))
        {
            foreach (var jobId in validation)
            {
                alarms.EnqueueValidation(jobId);
            }
        }

        for (var rung = alarms.Waiting(JobAlarms.Train); rung < training; rung++)
        {
            alarms.EnqueueTraining();
        }
    }

    private async Task TidyAsync(CancellationToken cancellationToken)
    {
        if (_tidied is null || clock.GetElapsedTime(_tidied.Value) > HousekeepingPeriod)
        {
            _tidied = clock.GetTimestamp();
            runs.RemoveOlderThan(TimeSpan.FromDays(options.Value.KeepRunsDays));
            Collected(logger, await artifacts.CollectAsync(cancellationToken));
        }
    }

    [LoggerMessage(LogLevel.Warning, "{Count} jobs had lost their worker and were put back or ended")]
    private static partial void Ended(ILogger logger, int count);

    [LoggerMessage(LogLevel.Information, "Removed {Count} files that nothing names from the artifact store")]
    private static partial void Collected(ILogger logger, int count);

    [LoggerMessage(LogLevel.Warning, "No sweep, the database is away: {Reason}")]
    private static partial void Away(ILogger logger, string reason);

    [LoggerMessage(LogLevel.Error, "The sweep failed")]
    private static partial void Failed(ILogger logger, Exception exception);
}
