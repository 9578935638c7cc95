using PeftServer.Core.Files;
using PeftServer.Core.Jobs;
using PeftServer.Core.Storage;

namespace PeftServer.Worker.Training;

internal static class JobFiles
{
    extension(FileStore files)
    {
        /// <summary>The bytes of a job's file. Throws <see cref="StagingException"/> when it was deleted or its blob is lost.</summary>
        /// <param name="job">The job that names the file.</param>
        /// <param name="field">The field in which it does.</param>
        /// <param name="fileId">The file.</param>
        /// <param name="cancellationToken">Ends the wait for the database.</param>
        public async Task<Stream> OpenForJobAsync(FineTuningJob job, string field, string fileId, CancellationToken cancellationToken)
        {
            var file = await files.FindAsync(job.ProjectId, fileId, cancellationToken) ?? throw new StagingException(new JobError(
                $"deleted_{field}", $"The file {fileId} was deleted before the job ran. Upload it again and create a new job.", field));
            try
            {
                return await files.OpenAsync(file, cancellationToken);
            }
            catch (ArtifactNotFoundException e)
            {
                throw new StagingException(new JobError("file_not_available", $"The content of {fileId} is gone: {e.Message}", field));
            }
        }
    }
}
