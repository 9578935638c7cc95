using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;
using PeftServer.Core.Files;
using PeftServer.Core.Jobs;
using PeftServer.Core.Models;
using PeftServer.Worker.Training;

namespace PeftServer.Worker.Validation;

/// <summary>
/// <c>validating_files</c>: the files of a job against its model, template and limits. A job that would learn nothing ends
/// here, with the lines at fault.
/// </summary>
internal sealed class JobFilesCheck(
    JobClaims claims, JobSignals signals, JobWriter writer, JobAlarms alarms, FileStore files, BaseModels models,
    IOptions<WorkerOptions> options, TimeProvider clock, ILogger<JobFilesCheck> logger)
{
    public async Task RunAsync(JobLease lease, CancellationToken stopping)
    {
        await using var keeper = new LeaseKeeper(lease, claims, signals, options.Value.Lease, clock, logger);
        using var interrupted = CancellationTokenSource.CreateLinkedTokenSource(stopping, keeper.Lost);
        try
        {
            var job = await claims.LoadAsync(lease.JobId, interrupted.Token);
            var fault = await FaultAsync(job, interrupted.Token);
            await writer.WriteAsync(
                lease,
                transaction =>
                {
                    if (fault is null)
                    {
                        transaction.Queue();
                        return;
                    }

                    transaction.Fail(fault);
                },
                interrupted.Token);
            if (fault is null)
            {
                alarms.EnqueueTraining();
            }
        }
        catch (LeaseLostException)
        {
            // Cancelled meanwhile, or checked by another.
        }
    }

    private async Task<JobError?> FaultAsync(FineTuningJob job, CancellationToken cancellationToken)
    {
        if (models.Find(job.BaseModel) is null)
        {
            return new JobError("model_not_available", $"The base model '{job.BaseModel}' is not in the worker's Models:Root.", "model");
        }

        foreach (var (field, fileId) in new[] { ("training_file", job.TrainingFile), ("validation_file", job.ValidationFile) })
        {
            if (fileId is not null && await files.FindAsync(job.ProjectId, fileId, cancellationToken) is null)
            {
                return new JobError($"deleted_{field}", $"The file {fileId} was deleted. Upload it again and create a new job.", field);
            }
        }

        return null;
    }
}
