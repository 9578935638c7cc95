using System.Text.Json;
using Microsoft.Extensions.Options;
using PeftServer.Core.Files;
using PeftServer.Core.Jobs;
using PeftServer.Core.Models;
using PeftServer.Engine;
using PeftServer.Engine.Training;
using PeftServer.Worker.Devices;

namespace PeftServer.Worker.Training;

/// <summary>The job can not be run as it stands; the error is for its owner.</summary>
internal sealed class StagingException(JobError error) : Exception(error.Message)
{
    public JobError Error { get; } = error;
}

/// <summary>Puts what a run needs into its folder. The trainer knows no store and no database.</summary>
internal sealed class RunStaging(RunFolders runs, FileStore files, BaseModels models, ExpertStaging experts, StartingModels startingModels, IOptions<WorkerOptions> options)
{
    /// <summary>
    /// Makes the folder of this attempt; checkpoints of a former run on this host move into it, so the trainer goes on from
    /// them. Throws <see cref="StagingException"/> when a file or the base model is gone.
    /// </summary>
    public async Task<RunFolder> StageAsync(FineTuningJob job, RunFolder? former, TrainingDevice device, CancellationToken cancellationToken)
    {
        var run = runs.Of(job.Id, job.Attempt);
        Directory.CreateDirectory(run.Path);
        var model = models.Find(job.BaseModel) ?? throw new StagingException(new JobError(
            "model_not_available", $"The base model '{job.BaseModel}' is not in the worker's Models:Root any more.", "model"));
        await CopyAsync(job, job.TrainingFile, "training_file", run.TrainingFile, cancellationToken);
        if (job.ValidationFile is not null)
        {
            await CopyAsync(job, job.ValidationFile, "validation_file", run.ValidationFile, cancellationToken);
        }

        if (former is not null && Directory.Exists(former.Checkpoints) && !Directory.Exists(run.Checkpoints))
        {
            Directory.Move(former.Checkpoints, run.Checkpoints);
        }

        var starts = await startingModels.StageAsync(job, run.StartingAdapter, former?.StartingAdapter, cancellationToken);
        var mixes = !starts && await experts.StageAsync(job, run.Experts, cancellationToken);
        await WriteSpecAsync(run, job, model, device, (mixes, starts), cancellationToken);
        return run;
    }

    private async Task CopyAsync(FineTuningJob job, string fileId, string field, string destination, CancellationToken cancellationToken)
    {
        await using var from = await files.OpenForJobAsync(job, field, fileId, cancellationToken);
        await using var to = File.Create(destination);
        await from.CopyToAsync(to, cancellationToken);
    }

    private string FolderOfEmbedder(string name) => models.Find(name)?.Folder ?? throw new StagingException(new JobError(
        "model_not_available", $"The embedding model '{name}' is not in the worker's Models:Root any more.", "method.grpo.grader.embedding_model"));

    private async Task WriteSpecAsync(RunFolder run, FineTuningJob job, BaseModel model, TrainingDevice device, (bool Mixes, bool Starts) adapters, CancellationToken cancellationToken)
    {
        var spec = new TrainingSpec
        {
            Model = model.Folder,
            ModelName = model.Name,
            TrainingFile = Path.GetFileName(run.TrainingFile),
            ValidationFile = job.ValidationFile is null ? null : Path.GetFileName(run.ValidationFile),
            Peft = job.Peft,
            StartingAdapter = adapters.Starts ? Path.GetFileName(run.StartingAdapter) : null,
            Experts = adapters.Mixes ? Path.GetFileName(run.Experts) : null,
            EmbeddingModels = job.Method.EmbeddingModels.Any() ? job.Method.EmbeddingModels.ToDictionary(name => name, FolderOfEmbedder) : null,
            Method = job.Method,
            Training = job.Training,
            Device = device.NameInTrainer,
            PeakTflops = options.Value.PeakTflops,
        };
        await File.WriteAllBytesAsync(run.Spec, JsonSerializer.SerializeToUtf8Bytes(spec, PeftJson.Indented), cancellationToken);
    }
}
