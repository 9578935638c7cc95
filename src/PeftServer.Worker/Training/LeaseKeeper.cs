using Microsoft.Extensions.Logging;
using PeftServer.Core.Data;
using PeftServer.Core.Jobs;

namespace PeftServer.Worker.Training;

/// <summary>
/// Keeps a lease while its job is worked on, and listens for what the job's owner wants. Without a database it goes on
/// trying: the job is lost only when somebody else has taken it.
/// </summary>
internal sealed partial class LeaseKeeper : IAsyncDisposable
{
    private readonly CancellationTokenSource _done = new();
    private readonly CancellationTokenSource _lost = new();
    private readonly CancellationTokenSource _cancelAsked = new();
    private readonly CancellationTokenSource _pauseAsked = new();
    private readonly Task _loop;

    public LeaseKeeper(JobLease lease, JobClaims claims, JobSignals signals, TimeSpan duration, TimeProvider clock, ILogger logger) =>
        _loop = Task.Run(() => KeepAsync(lease, claims, signals, duration, clock, logger));

    /// <summary>Another worker has a newer epoch, or the job is over: nothing may be written any more.</summary>
    public CancellationToken Lost => _lost.Token;

    public CancellationToken CancelAsked => _cancelAsked.Token;

    public CancellationToken PauseAsked => _pauseAsked.Token;

    public async ValueTask DisposeAsync()
    {
        await _done.CancelAsync();
        await _loop;
        _done.Dispose();
        _lost.Dispose();
        _cancelAsked.Dispose();
        _pauseAsked.Dispose();
    }

    private async Task KeepAsync(JobLease lease, JobClaims claims, JobSignals signals, TimeSpan duration, TimeProvider clock, ILogger logger)
    {
        var period = duration / 6;
        using var subscription = signals.Subscribe(lease.JobId, poll: period);
        var renewed = clock.GetTimestamp();
        try
        {
            while (!_done.IsCancellationRequested && !_lost.IsCancellationRequested)
            {
                try
                {
                    if (clock.GetElapsedTime(renewed) < period)
                    {
                        await ListenAsync(await claims.DesiredStateAsync(lease.JobId, _done.Token));
                    }
                    else
                    {
                        var status = await claims.RenewAsync(lease, duration, _done.Token);
                        renewed = clock.GetTimestamp();
                        await ListenAsync(status.DesiredState);
                        if (!status.Held)
                        {
                            LeaseLost(logger, lease.JobId, lease.Epoch);
                            await _lost.CancelAsync();
                        }
                    }
                }
                catch (Exception e) when (DatabaseFaults.IsPassing(e))
                {
                    NotRenewed(logger, lease.JobId, e.Message);
                }
                catch (Exception e) when (!_done.IsCancellationRequested)
                {
                    Broken(logger, lease.JobId, e); // and tried again: whatever it is, training is not to suffer from it
                }

                await subscription.WaitAsync(_done.Token);
            }
        }
        catch (OperationCanceledException) when (_done.IsCancellationRequested)
        {
            // The work is done.
        }
    }

    private Task ListenAsync(JobState? desired) => desired switch
    {
        JobState.Cancelled => _cancelAsked.CancelAsync(),
        JobState.Paused => _pauseAsked.CancelAsync(),
        _ => Task.CompletedTask,
    };

    [LoggerMessage(LogLevel.Warning, "Job {JobId} is no longer held under epoch {Epoch}")]
    private static partial void LeaseLost(ILogger logger, string jobId, long epoch);

    [LoggerMessage(LogLevel.Error, "The lease of job {JobId} could not be renewed")]
    private static partial void Broken(ILogger logger, string jobId, Exception exception);

    [LoggerMessage(LogLevel.Warning, "The lease of job {JobId} was not renewed, training goes on: {Reason}")]
    private static partial void NotRenewed(ILogger logger, string jobId, string reason);
}
