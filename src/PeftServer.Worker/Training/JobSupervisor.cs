using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;
using PeftServer.Core.Jobs;
using PeftServer.Engine.Training;
using PeftServer.Worker.Devices;

namespace PeftServer.Worker.Training;

/// <summary>Sees one claimed job to its end: stages, starts the trainer, stores what it says, publishes what it makes.</summary>
internal sealed partial class JobSupervisor(
    JobClaims claims, JobSignals signals, RunRecord record, RunStaging staging, RunFolders runs,
    TrainerLauncher launcher, IOptions<WorkerOptions> options, TimeProvider clock, ILogger<JobSupervisor> logger)
{
    private static readonly TimeSpan TailPeriod = TimeSpan.FromMilliseconds(200);
    private static readonly TimeSpan CancelPatience = TimeSpan.FromSeconds(1.2); // of the 2 s that a cancel may take
    private static readonly TimeSpan PausePatience = TimeSpan.FromMinutes(5); // a step, and a checkpoint on a slow disk
    private static readonly TimeSpan StopPatience = TimeSpan.FromSeconds(3);
    private static readonly TimeSpan WritePatience = TimeSpan.FromSeconds(4.5);
    private static readonly TimeSpan ExitPatience = TimeSpan.FromSeconds(30);

    /// <summary>
    /// Returns when nothing is left to do here: the job is over, handed back because <paramref name="stopping"/> was
    /// signalled, or another's.
    /// </summary>
    public async Task RunAsync(JobLease lease, TrainingDevice device, CancellationToken stopping)
    {
        await using var keeper = new LeaseKeeper(lease, claims, signals, options.Value.Lease, clock, logger);
        using var writable = CancellationTokenSource.CreateLinkedTokenSource(keeper.Lost);
        await using var lastChance = stopping.Register(() => writable.CancelAfter(WritePatience));
        try
        {
            await SuperviseOrFailAsync(lease, device, keeper, stopping, writable.Token);
        }
        catch (Exception e) when (e is LeaseLostException || (e is OperationCanceledException && writable.IsCancellationRequested))
        {
            Dropped(logger, lease.JobId, lease.Epoch);
        }
    }

    private async Task SuperviseOrFailAsync(JobLease lease, TrainingDevice device, LeaseKeeper keeper, CancellationToken stopping, CancellationToken writable)
    {
        try
        {
            await SuperviseAsync(lease, device, keeper, stopping, writable);
        }
        catch (StagingException e)
        {
            await record.FailAsync(lease, e.Error, writable);
        }
        catch (Exception e) when (e is not (LeaseLostException or OperationCanceledException))
        {
            Broken(logger, lease.JobId, e);
            await record.FailAsync(lease, new JobError("worker_failed", $"The worker could not run this job: {e.Message}"), writable);
        }
    }

    private async Task SuperviseAsync(JobLease lease, TrainingDevice device, LeaseKeeper keeper, CancellationToken stopping, CancellationToken writable)
    {
        using var interrupted = CancellationTokenSource.CreateLinkedTokenSource(stopping, keeper.CancelAsked, keeper.PauseAsked, writable);
        TrainerProcess? trainer = null;
        RunFolder? run = null;
        TrainingEvent? outcome = null;
        try
        {
            var job = await claims.LoadAsync(lease.JobId, writable);
            (run, outcome) = await FormerAsync(lease, job, interrupted.Token);
            if (outcome is null)
            {
                run = await staging.StageAsync(job, run, device, interrupted.Token);
                await record.BeginRunAsync(lease, runs.Id, interrupted.Token);
                trainer = await launcher.StartAsync(run, device);
                Started(logger, lease.JobId, run.Path, device.Name);
                outcome = await FollowAsync(lease, trainer, new EventsFile(run.Events), interrupted.Token);
            }
        }
        catch (OperationCanceledException) when (interrupted.IsCancellationRequested)
        {
            if (trainer is not null)
            {
                await StopAsync(trainer, keeper, stopping);
                outcome = await record.StoreEventsAsync(lease, new EventsFile(run!.Events), writable);
            }
        }
        finally
        {
            // Whatever went wrong, no trainer outlives its supervision.
            await (trainer is { HasExited: false } ? trainer.StopAsync(null, TimeSpan.Zero) : Task.CompletedTask);
        }

        using (trainer)
        {
            await EndAsync(lease, run, trainer, outcome, keeper, stopping, writable);
        }
    }

    /// <summary>Ends the trainer as the job's owner or this worker's end wants it. A cancel may come while it pauses.</summary>
    private static async Task StopAsync(TrainerProcess trainer, LeaseKeeper keeper, CancellationToken stopping)
    {
        if (keeper.PauseAsked.IsCancellationRequested && !keeper.CancelAsked.IsCancellationRequested && !stopping.IsCancellationRequested)
        {
            using var interrupted = CancellationTokenSource.CreateLinkedTokenSource(stopping, keeper.CancelAsked, keeper.Lost);
            if (await trainer.AskAsync("pause", PausePatience, interrupted.Token))
            {
                return;
            }
        }

        await (keeper.CancelAsked.IsCancellationRequested ? trainer.StopAsync("cancel", CancelPatience) : trainer.StopAsync(null, StopPatience));
    }

    // Cancelled wins over succeeded: who asked for no model gets none. A stop wins over everything but a finished run.
    private Task EndAsync(
        JobLease lease, RunFolder? run, TrainerProcess? trainer, TrainingEvent? outcome, LeaseKeeper keeper, CancellationToken stopping, CancellationToken writable)
    {
        writable.ThrowIfCancellationRequested();
        if (keeper.CancelAsked.IsCancellationRequested)
        {
            return record.CancelAsync(lease, writable);
        }

        return outcome switch
        {
            { Type: TrainingEventType.Succeeded } => record.PublishAsync(lease, run!, outcome, writable),
            { Type: TrainingEventType.Failed } => record.FailAsync(lease, new JobError("training_failed", outcome.Message), writable),
            _ when keeper.PauseAsked.IsCancellationRequested => record.PauseAsync(lease, writable), // from its last checkpoint, wherever it stopped
            _ when stopping.IsCancellationRequested => record.HandBackAsync(lease, writable),
            { } => record.FailAsync(lease, new JobError("trainer_stopped", $"The trainer stopped without being asked: {outcome.Message}"), writable),
            null => record.FailAsync(lease, new JobError("trainer_crashed", trainer!.Obituary()), writable),
        };
    }

    /// <summary>
    /// What a former attempt left on this host: its trainer is ended, its last events are stored, and if it had finished,
    /// its outcome is this one's.
    /// </summary>
    private async Task<(RunFolder? Run, TrainingEvent? Outcome)> FormerAsync(JobLease lease, FineTuningJob job, CancellationToken cancellationToken)
    {
        var former = runs.Of(job.Id, job.RunAttempt);
        if (job.RunStore != runs.Id || !Directory.Exists(former.Path))
        {
            return (null, null);
        }

        await TrainerProcess.KillOrphanAsync(former, cancellationToken);
        var outcome = await record.StoreEventsAsync(lease, new EventsFile(former.Events), cancellationToken);
        return (former, outcome is { Type: TrainingEventType.Succeeded } && Directory.Exists(former.Adapter) ? outcome : null);
    }

    /// <summary>Stores events as they come until the trainer is gone; returns its outcome, or null when it told none.</summary>
    private async Task<TrainingEvent?> FollowAsync(JobLease lease, TrainerProcess trainer, EventsFile events, CancellationToken cancellationToken)
    {
        var exited = trainer.WaitForExitAsync(cancellationToken);
        for (var seen = 0L; !exited.IsCompleted;)
        {
            if (events.Length is var length && length > seen)
            {
                seen = length;
                if (await record.StoreEventsAsync(lease, events, cancellationToken) is { } outcome)
                {
                    // It has said its last word. A process that hangs in its teardown does not hold up the job.
                    await Task.WhenAny(exited, Task.Delay(ExitPatience, clock, cancellationToken));
                    cancellationToken.ThrowIfCancellationRequested();
                    return outcome;
                }
            }

            await Task.WhenAny(exited, Task.Delay(TailPeriod, clock, cancellationToken));
            cancellationToken.ThrowIfCancellationRequested();
        }

        await exited;
        return await record.StoreEventsAsync(lease, events, cancellationToken);
    }

    [LoggerMessage(LogLevel.Information, "Job {JobId} trains in {Folder} on {Device}")]
    private static partial void Started(ILogger logger, string jobId, string folder, string device);

    [LoggerMessage(LogLevel.Warning, "Job {JobId} is left alone: epoch {Epoch} is no longer its newest, or there is no time left to write")]
    private static partial void Dropped(ILogger logger, string jobId, long epoch);

    [LoggerMessage(LogLevel.Error, "Job {JobId} could not be run")]
    private static partial void Broken(ILogger logger, string jobId, Exception exception);
}
