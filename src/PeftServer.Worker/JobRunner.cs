using Hangfire.Server;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;
using PeftServer.Core.Jobs;
using PeftServer.Worker.Devices;
using PeftServer.Worker.Scheduling;
using PeftServer.Worker.Training;
using PeftServer.Worker.Validation;

namespace PeftServer.Worker;

/// <summary>What an alarm sets off. Hangfire's own cancellation is not heeded: it also fires when the database was away.</summary>
internal sealed partial class JobRunner(
    JobClaims claims, JobSupervisor supervisor, JobFilesCheck check, TrainingDevices devices,
    IHostApplicationLifetime lifetime, IOptions<WorkerOptions> options, ILogger<JobRunner> logger) : IJobRunner
{
    private readonly string _name = $"{Environment.MachineName}:{Environment.ProcessId}";

    public async Task ValidateAsync(string jobId, CancellationToken cancellationToken)
    {
        if (await claims.ClaimValidationAsync(jobId, _name, options.Value.Lease, lifetime.ApplicationStopping) is { } lease)
        {
            await check.RunAsync(lease, lifetime.ApplicationStopping);
        }
    }

    public async Task TrainNextAsync(PerformContext? context, CancellationToken cancellationToken)
    {
        var stopping = lifetime.ApplicationStopping;
        if (stopping.IsCancellationRequested || !devices.TryTake(out var device))
        {
            return; // the sweep rings again
        }

        try
        {
            var capacity = new WorkerCapacity(Devices: 1, device.MemoryBytes);
            if (await claims.ClaimNextAsync(_name, capacity, options.Value.Lease, stopping) is { } lease)
            {
                context?.SetJobParameter("FineTuningJob", lease.JobId);
                await supervisor.RunAsync(lease, device, stopping);
                await EndAlikeAsync(lease, CancellationToken.None);
            }
        }
        finally
        {
            devices.Return(device);
        }
    }

    private async Task EndAlikeAsync(JobLease lease, CancellationToken cancellationToken)
    {
        var job = await claims.LoadAsync(lease.JobId, cancellationToken);
        Ended(logger, job.Id, job.State);
        switch (job.State)
        {
            case JobState.Succeeded:
                return;
            case JobState.Failed:
                throw new JobFailedException($"{job.Id} failed: {job.ErrorMessage}");
            default:
                throw new JobStoppedException($"{job.Id} is {job.State}");
        }
    }

    [LoggerMessage(LogLevel.Information, "Job {JobId} is {State}")]
    private static partial void Ended(ILogger logger, string jobId, JobState state);
}
