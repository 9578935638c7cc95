namespace PeftServer.Engine.Training;

/// <summary>The factor of the learning rate at each step, as transformers' schedules give it.</summary>
public static class LearningRate
{
    /// <summary>The factor at <paramref name="step"/>, counted from 0; the first is 0 where there is a warm-up.</summary>
    public static double Factor(LearningRateSchedule schedule, int step, int warmupSteps, int totalSteps)
    {
        if (schedule is LearningRateSchedule.Constant)
        {
            return 1;
        }

        if (step < warmupSteps)
        {
            return (double)step / Math.Max(1, warmupSteps);
        }

        var progress = (double)(step - warmupSteps) / Math.Max(1, totalSteps - warmupSteps);
        return schedule switch
        {
            LearningRateSchedule.ConstantWithWarmup => 1,
            LearningRateSchedule.Linear => Math.Max(0, 1 - progress),
            LearningRateSchedule.Cosine => Math.Max(0, 0.5 * (1 + Math.Cos(Math.PI * progress))),
            LearningRateSchedule.Constant => 1,
            _ => throw new ArgumentOutOfRangeException(nameof(schedule), schedule, "There is no such schedule."),
        };
    }

    /// <summary>Warm-up steps of <paramref name="arguments"/>: given as such, or as a share of all steps, rounded up.</summary>
    public static int WarmupSteps(TrainingArguments arguments, int totalSteps) =>
        arguments.WarmupSteps > 0 ? arguments.WarmupSteps : (int)Math.Ceiling(totalSteps * arguments.WarmupRatio);
}
