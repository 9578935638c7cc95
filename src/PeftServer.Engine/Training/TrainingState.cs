using System.Text.Json;

namespace PeftServer.Engine.Training;

/// <summary>Where a run stands, beside its weights and its optimizer.</summary>
internal sealed record TrainingState
{
    public int StepsDone { get; init; }

    /// <summary>Tokens that went through the model.</summary>
    public long Tokens { get; init; }

    /// <summary>Digest of the adapter that the run started from; null where it started anew.</summary>
    public string? StartingAdapterSha256 { get; init; }

    /// <summary>What the task carries from step to step: rollouts that are learnt from several times.</summary>
    public JsonElement? Task { get; init; }

    /// <summary>The best evaluation so far; null before the first.</summary>
    public double? BestMetric { get; init; }

    /// <summary>The step of the best evaluation.</summary>
    public int BestStep { get; init; }

    /// <summary>Evaluations since then.</summary>
    public int EvaluationsWithoutGain { get; init; }

    /// <summary>Losses of the newest steps, oldest first.</summary>
    public IReadOnlyList<double> RecentLosses { get; init; } = [];
}
