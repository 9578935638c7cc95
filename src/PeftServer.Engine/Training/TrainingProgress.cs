namespace PeftServer.Engine.Training;

/// <summary>How far a run has come in this process, and how fast it goes.</summary>
internal sealed class TrainingProgress(TrainingPlan plan, int stepsDone, TimeProvider clock, long tokens = 0)
{
    private readonly long _started = clock.GetTimestamp();
    private readonly int _first = stepsDone;
    private readonly Queue<StepResult> _recent = new();

    public int StepsDone { get; private set; } = stepsDone;

    /// <summary>Tokens that went through the model, in the processes before this one too.</summary>
    public long Tokens { get; private set; } = tokens;

    /// <summary>Over the last 20 steps.</summary>
    public double TokensPerSecond => _recent.Sum(step => step.TokenCount) / RecentSeconds;

    /// <summary>Operations a second that the model needed, over the same steps.</summary>
    public double FlopsPerSecond => _recent.Sum(step => step.Flops) / RecentSeconds;

    private double RecentSeconds => Math.Max(1e-9, _recent.Sum(step => step.Time.TotalSeconds));

    /// <summary>From the mean time of the steps since this process began: a resumed run does not count what it skipped.</summary>
    public double SecondsLeft =>
        clock.GetElapsedTime(_started).TotalSeconds / Math.Max(1, StepsDone - _first) * (plan.TotalSteps - StepsDone);

    public void Add(StepResult step)
    {
        StepsDone = step.Step;
        Tokens += step.TokenCount;
        _recent.Enqueue(step);
        if (_recent.Count > 20)
        {
            _recent.Dequeue();
        }
    }
}
