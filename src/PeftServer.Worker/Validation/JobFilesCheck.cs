using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;
using PeftServer.Core.Data;
using PeftServer.Core.Files;
using PeftServer.Core.Jobs;
using PeftServer.Core.Models;
using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.Prompts;
using PeftServer.Engine.Data;
using PeftServer.Engine.Models;
using PeftServer.Engine.Tokenizers;
using PeftServer.Engine.Tokenizers.ChatTemplates;
using PeftServer.Engine.Training;
using PeftServer.Engine.Weights;
using PeftServer.Worker.Training;

namespace PeftServer.Worker.Validation;

/// <summary>
/// <c>validating_files</c>: the files of a job against its model, template and limits. A job that would learn nothing ends
/// here, with the lines at fault. No tensors.
/// </summary>
internal sealed partial class JobFilesCheck(
    JobClaims claims, JobSignals signals, JobWriter writer, JobAlarms alarms, FileStore files, BaseModels models, StartingModels starts,
    IOptions<WorkerOptions> options, TimeProvider clock, ILogger<JobFilesCheck> logger)
{
    public async Task RunAsync(JobLease lease, CancellationToken stopping)
    {
        await using var keeper = new LeaseKeeper(lease, claims, signals, options.Value.Lease, clock, logger);
        using var interrupted = CancellationTokenSource.CreateLinkedTokenSource(stopping, keeper.Lost);
        try
        {
            var job = await claims.LoadAsync(lease.JobId, interrupted.Token);
            var (reports, fault) = await InspectOrFailAsync(job, interrupted.Token);
            await writer.WriteAsync(lease, transaction => Conclude(transaction, reports, fault, models.Find(job.BaseModel)), interrupted.Token);
            if (fault is null)
            {
                alarms.EnqueueTraining();
            }
        }
        catch (OperationCanceledException) when (stopping.IsCancellationRequested)
        {
            await claims.ReleaseValidationAsync(lease, CancellationToken.None);
        }
        catch (Exception e) when (e is LeaseLostException || (e is OperationCanceledException && keeper.Lost.IsCancellationRequested))
        {
            Dropped(logger, lease.JobId); // cancelled meanwhile, or taken by another
        }
    }

    private static void Conclude(JobTransaction transaction, IReadOnlyList<DatasetReport> reports, JobError? fault, BaseModel? model)
    {
        foreach (var report in reports)
        {
            report.Tell(transaction);
        }

        if (fault is not null)
        {
            transaction.Fail(fault);
            return;
        }

        var job = transaction.Job;
        if (job.AutoSettings.Count > 0)
        {
            transaction.Resolve(AutoSettings.Pick(
                job.AutoSettings, job.Training, reports[0].Summary, job.Method, job.Peft, PretrainedModel.Plan(model!.Folder, job.Method.Head)));
        }

        transaction.Queue();
    }

    // What nobody foresaw fails the job too: thrown on, it would be tried again and again.
    private async Task<(IReadOnlyList<DatasetReport> Reports, JobError? Fault)> InspectOrFailAsync(FineTuningJob job, CancellationToken cancellationToken)
    {
        try
        {
            return await InspectAsync(job, cancellationToken);
        }
        catch (Exception e) when (e is not OperationCanceledException && !DatabaseFaults.IsPassing(e))
        {
            Broken(logger, job.Id, e);
            return ([], new JobError("worker_failed", $"The worker could not check the files of this job: {e.Message}"));
        }
    }

    private async Task<(IReadOnlyList<DatasetReport> Reports, JobError? Fault)> InspectAsync(FineTuningJob job, CancellationToken cancellationToken)
    {
        if (models.Find(job.BaseModel) is not { } model)
        {
            return ([], new JobError("model_not_available", $"The base model '{job.BaseModel}' is not in the worker's Models:Root.", "model"));
        }

        var reports = new List<DatasetReport>();
        try
        {
            var tokenizer = Tokenizer.Load(model.Folder);
            var positions = MethodData.LengthOf(PretrainedModel.Plan(model.Folder, job.Method.Head));
            var virtualTokens = (job.Peft as PromptConfig)?.NumVirtualTokens ?? 0;
            if (virtualTokens >= positions - 1)
            {
                return ([], new JobError(
                    "invalid_value", $"{virtualTokens} virtual tokens leave no room in the {positions} that '{job.BaseModel}' takes. Use fewer.", "peft.num_virtual_tokens"));
            }

            var maxLength = MethodData.MaxLength(job.Training, positions - virtualTokens);
            var labels = await LabelsAsync(job, cancellationToken);
            if (labels is { Count: < 2 } && job.Method.Type is not TrainingMethodType.Reward)
            {
                return ([], new JobError("invalid_training_file", $"The file {job.TrainingFile} has {labels.Count} label(s); there must be at least two to tell apart.", "training_file"));
            }

            foreach (var (field, fileId) in FilesOf(job))
            {
                reports.Add(await ReadAsync(job, field, fileId, tokenizer, maxLength, labels, cancellationToken));
            }
        }
        catch (StagingException e)
        {
            return (reports, e.Error);
        }
        catch (TrainingException e)
        {
            return (reports, new JobError("invalid_value", e.Message, "method"));
        }
        catch (Exception e) when (e is TokenizerException or TemplateException or CheckpointException)
        {
            return (reports, new JobError("model_not_usable", $"The base model '{job.BaseModel}' cannot be trained: {e.Message}", "model"));
        }

        return (reports, reports.Select(report => report.Fault).FirstOrDefault(fault => fault is not null));
    }

    private async Task<IReadOnlyList<string>?> LabelsAsync(FineTuningJob job, CancellationToken cancellationToken)
    {
        var starting = StartingAdapters.LabelsOf(await starts.FindAsync(job, cancellationToken));
        await using var content = await files.OpenForJobAsync(job, "training_file", job.TrainingFile, cancellationToken);
        return await Task.Run(() => MethodData.Labels(job.Method, content, starting, cancellationToken), cancellationToken);
    }

    private async Task<DatasetReport> ReadAsync(
        FineTuningJob job, string field, string fileId, Tokenizer tokenizer, int maxLength, IReadOnlyList<string>? labels, CancellationToken cancellationToken)
    {
        await using var content = await files.OpenForJobAsync(job, field, fileId, cancellationToken);
        var (rows, summary) = await Task.Run(() => MethodData.Read(job.Method, content, tokenizer, job.Training, maxLength, labels, cancellationToken), cancellationToken);
        return new DatasetReport(field, fileId, summary, maxLength, Misfit(job.Peft, rows));
    }

    /// <summary>A row of a task that the job's method does not know.</summary>
    private static string? Misfit(AdapterConfig method, object rows) => method is not IKnowsTasks || rows is not TrainingData texts ? null : texts.Rows
        .Select(row => IKnowsTasks.Fault(method, row.Task) is { } fault ? $"line {row.Line}, task_id: {fault}" : null).FirstOrDefault(fault => fault is not null);

    private static IEnumerable<(string Field, string FileId)> FilesOf(FineTuningJob job)
    {
        yield return ("training_file", job.TrainingFile);
        if (job.ValidationFile is not null)
        {
            yield return ("validation_file", job.ValidationFile);
        }
    }

    [LoggerMessage(LogLevel.Error, "The files of {JobId} could not be checked")]
    private static partial void Broken(ILogger logger, string jobId, Exception exception);

    [LoggerMessage(LogLevel.Information, "The files of {JobId} need no check any more")]
    private static partial void Dropped(ILogger logger, string jobId);
}
