using PeftServer.Core.Jobs;
using PeftServer.Core.Models;
using PeftServer.Core.Storage;

namespace PeftServer.Worker.Training;

/// <summary>The fine-tuned models that jobs go on from.</summary>
internal sealed class StartingModels(ModelDirectory directory, AdapterFolders adapters)
{
    /// <summary>
    /// A local folder with the adapter that <paramref name="job"/> starts from, to read; null where it starts anew. Throws <see cref="StagingException"/> when the model
    /// was deleted meanwhile.
    /// </summary>
    public async Task<string?> FindAsync(FineTuningJob job, CancellationToken cancellationToken)
    {
        if (job.StartingModel is not { } name)
        {
            return null;
        }

        var model = await directory.ResolveAsync(job.ProjectId, name, cancellationToken);
        if (model?.Adapter is not { } manifest || model.BaseName != job.BaseModel)
        {
            throw new StagingException(new JobError(
                "model_not_available", $"The model '{name}', which this job starts from, was deleted before the job ran. Create a new job from another model.", "model"));
        }

        try
        {
            return await adapters.MaterializeAsync(manifest, cancellationToken);
        }
        catch (Exception e) when (e is ArtifactNotFoundException or InvalidDataException)
        {
            throw new StagingException(new JobError("model_not_available", $"The files of '{name}', which this job starts from, are gone or damaged: {e.Message}", "model"));
        }
    }

    /// <summary>
    /// Copies the adapter that <paramref name="job"/> starts from into <paramref name="folder"/>, out of that of a <paramref name="former"/> attempt where it lies there:
    /// what began with it goes on whatever becomes of the model. False where the job starts anew.
    /// </summary>
    public async Task<bool> StageAsync(FineTuningJob job, string folder, string? former, CancellationToken cancellationToken)
    {
        if (job.StartingModel is null || Directory.Exists(folder))
        {
            return job.StartingModel is not null;
        }

        if (former is not null && Directory.Exists(former))
        {
            Directory.Move(former, folder);
            return true;
        }

        // Complete once it is there: a worker that dies in between leaves another name.
        var (source, temporary) = ((await FindAsync(job, cancellationToken))!, folder + ".tmp");
        foreach (var path in Directory.EnumerateFiles(source, "*", SearchOption.AllDirectories))
        {
            var target = Path.Combine(temporary, Path.GetRelativePath(source, path));
            Directory.CreateDirectory(Path.GetDirectoryName(target)!);
            File.Copy(path, target, overwrite: true);
        }

        Directory.Move(temporary, folder);
        return true;
    }
}
