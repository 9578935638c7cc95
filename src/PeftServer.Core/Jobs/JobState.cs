namespace PeftServer.Core.Jobs;

/// <summary>
/// Where a job stands: <c>validating_files → queued → running → succeeded | failed | cancelled</c>, and <c>paused</c>.
/// On the wire and in the database by its snake_case name.
/// </summary>
public enum JobState
{
    ValidatingFiles,
    Queued,
    Running,
    Paused,
    Succeeded,
    Failed,
    Cancelled,
}

public static class JobStates
{
    extension(JobState state)
    {
        /// <summary>Nothing changes any more.</summary>
        public bool IsFinal => state is JobState.Succeeded or JobState.Failed or JobState.Cancelled;
    }
}
