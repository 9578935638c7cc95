using PeftServer.Core.Jobs;
using PeftServer.Core.Models;
using PeftServer.Core.Storage;

namespace PeftServer.Worker.Training;

/// <summary>Puts the adapters that X-LoRA mixes, or Arrow chooses between, into a run folder: fine-tuned models of the job's base.</summary>
internal sealed class ExpertStaging(ModelDirectory directory, AdapterFolders adapters)
{
    /// <summary>
    /// Copies the experts of <paramref name="job"/> into <paramref name="folder"/>; false where its method has none. Throws
    /// <see cref="StagingException"/> when one of them is gone.
    /// </summary>
    public async Task<bool> StageAsync(FineTuningJob job, string folder, CancellationToken cancellationToken)
    {
        foreach (var (place, field, name) in job.Peft.Experts)
        {
            var model = await directory.ResolveAsync(job.ProjectId, name, cancellationToken);
            if (model?.Adapter is not { } manifest || model.BaseName != job.BaseModel)
            {
                throw new StagingException(new JobError("expert_not_available", $"The expert '{name}' is no fine-tuned model of '{job.BaseModel}' any more.", $"peft.{field}"));
            }

            var source = await adapters.MaterializeAsync(manifest, cancellationToken);
            var target = Directory.CreateDirectory(Path.Combine(folder, place)).FullName;
            foreach (var file in (string[])[Engine.Adapters.AdapterFile.ConfigName, Engine.Adapters.AdapterFile.WeightsName])
            {
                File.Copy(Path.Combine(source, file), Path.Combine(target, file), overwrite: true);
            }
        }

        return job.Peft.Experts.Count > 0;
    }
}
