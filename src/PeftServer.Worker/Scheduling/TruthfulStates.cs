using Hangfire.States;

namespace PeftServer.Worker.Scheduling;

/// <summary>The job ended without a model, because somebody wanted it so.</summary>
internal sealed class JobStoppedException(string message) : Exception(message);

/// <summary>The job failed; the row says why.</summary>
internal sealed class JobFailedException(string message) : Exception(message);

/// <summary>An alarm ends as the job it stood for: cancelled jobs are "deleted" on the dashboard, not "failed".</summary>
internal sealed class TruthfulStates : IElectStateFilter
{
    public void OnStateElection(ElectStateContext context)
    {
        if (context.CandidateState is FailedState { Exception: JobStoppedException stopped })
        {
            context.CandidateState = new DeletedState { Reason = stopped.Message };
        }
    }
}
