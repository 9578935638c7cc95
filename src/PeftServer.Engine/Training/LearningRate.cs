using System.Text.Json.Serialization;

namespace PeftServer.Engine.Training;

/// <summary>The factor of the learning rate at each step, as transformers' schedules give it.</summary>
public static class LearningRate
{
    /// <summary>The factor at <paramref name="step"/>, counted from 0; the first is 0 where there is a warm-up.</summary>
    /// <param name="schedule">The shape.</param>
    /// <param name="step">The step, from 0.</param>
    /// <param name="warmupSteps">Steps of rising rate.</param>
    /// <param name="totalSteps">Steps of the run.</param>
    /// <param name="learningRate">The highest rate, for settings that are rates themselves.</param>
    /// <param name="settings">What some shapes take besides.</param>
    public static double Factor(LearningRateSchedule schedule, int step, int warmupSteps, int totalSteps, double learningRate = 1, ScheduleArguments? settings = null)
    {
        settings ??= new ScheduleArguments();
        switch (schedule)
        {
            case LearningRateSchedule.Constant:
                return 1;
            case LearningRateSchedule.WarmupStableDecay:
                return WarmupStableDecay(step, warmupSteps, totalSteps, settings);
            case LearningRateSchedule.CosineWarmupWithMinLr when step < warmupSteps:
                return settings.WarmupLrRate is { } first
                    ? first + ((1 - first) * step / Math.Max(1, warmupSteps - 1))
                    : (step + 1.0) / Math.Max(1, warmupSteps);
        }

        if (step < warmupSteps)
        {
            return (double)step / Math.Max(1, warmupSteps);
        }

        var rest = Math.Max(1, totalSteps - warmupSteps);
        var progress = (double)(step - warmupSteps) / rest;
        return schedule switch
        {
            LearningRateSchedule.ConstantWithWarmup => 1,
            LearningRateSchedule.Linear => Math.Max(0, 1 - progress),
            LearningRateSchedule.Cosine => Math.Max(0, Wave(progress, settings.NumCycles ?? 0.5)),
            LearningRateSchedule.CosineWithRestarts => progress >= 1 ? 0 : Math.Max(0, Wave(settings.NumCycles is { } cycles ? cycles * progress % 1 : progress, 0.5)),
            LearningRateSchedule.CosineWithMinLr => Raised(Wave(progress, settings.NumCycles ?? 0.5), Least(settings, learningRate)),
            LearningRateSchedule.CosineWarmupWithMinLr => Raised(Wave(progress + (1.0 / rest), settings.NumCycles ?? 0.5), Least(settings, learningRate)),
            LearningRateSchedule.Polynomial => Polynomial(progress, settings.LrEnd / learningRate, settings.Power),
            LearningRateSchedule.InverseSqrt => InverseSqrt(step, warmupSteps, settings.Timescale ?? (warmupSteps > 0 ? warmupSteps : 10_000)),
            _ => throw new ArgumentOutOfRangeException(nameof(schedule), schedule, "There is no such schedule."),
        };
    }

    /// <summary>Warm-up steps of <paramref name="arguments"/>: given as such, or as a share of all steps, rounded up.</summary>
    public static int WarmupSteps(TrainingArguments arguments, int totalSteps) =>
        arguments.WarmupSteps > 0 ? arguments.WarmupSteps : (int)Math.Ceiling(totalSteps * arguments.WarmupRatio);

    /// <summary>A cosine from 1; half a cycle ends at 0.</summary>
    private static double Wave(double progress, double cycles) => 0.5 * (1 + Math.Cos(Math.PI * cycles * 2 * progress));

    private static double Raised(double factor, double least) => Math.Max(0, (factor * (1 - least)) + least);

    private static double Least(ScheduleArguments settings, double learningRate) =>
        settings.MinLr is { } rate ? rate / learningRate : settings.MinLrRate ?? 0;

    private static double Polynomial(double progress, double end, double power) =>
        progress > 1 ? end : ((1 - end) * Math.Pow(1 - progress, power)) + end;

    private static double InverseSqrt(int step, int warmupSteps, int timescale) => 1 / Math.Sqrt((double)(step + timescale - warmupSteps) / timescale);

    /// <summary>Up, level, down (<see href="https://arxiv.org/abs/2404.06395"/>).</summary>
    private static double WarmupStableDecay(int step, int warmupSteps, int totalSteps, ScheduleArguments settings)
    {
        var decaySteps = settings.NumDecaySteps ?? Math.Max(1, totalSteps / 10);
        var stableSteps = settings.NumStableSteps ?? totalSteps - warmupSteps - decaySteps;
        if (step < warmupSteps)
        {
            var rise = (double)step / Math.Max(1, warmupSteps);
            return Raised(1 - Shape(settings.WarmupType, rise, 0.5), settings.MinLrRatio);
        }

        var down = step - warmupSteps - stableSteps;
        return down < 0 ? 1
            : down < decaySteps ? Raised(settings.DecayType is RampShape.OneMinusSqrt ? 1 - Math.Sqrt((double)down / decaySteps) : Shape(settings.DecayType, (double)down / decaySteps, settings.NumCycles ?? 0.5), settings.MinLrRatio)
            : settings.MinLrRatio;
    }

    /// <summary>From 1 to 0 as <paramref name="progress"/> goes from 0 to 1.</summary>
    private static double Shape(RampShape shape, double progress, double cycles) => shape switch
    {
        RampShape.Linear => 1 - progress,
        RampShape.Cosine => Wave(progress, cycles),
        RampShape.OneMinusSqrt => Math.Sqrt(1 - progress),
        _ => throw new ArgumentOutOfRangeException(nameof(shape), shape, "There is no such shape."),
    };
}

/// <summary>The learning-rate schedules, by transformers' names.</summary>
public enum LearningRateSchedule
{
    Linear,
    Cosine,
    Constant,
    ConstantWithWarmup,
    CosineWithRestarts,
    CosineWithMinLr,
    CosineWarmupWithMinLr,
    Polynomial,
    InverseSqrt,
    WarmupStableDecay,
}

/// <summary>What some schedules take besides: transformers' <c>lr_scheduler_kwargs</c>.</summary>
public sealed record ScheduleArguments
{
    /// <summary>Waves of a cosine, 0.5 where absent; of cosine_with_restarts: how often it starts, 1 where absent.</summary>
    public double? NumCycles { get; init; }

    /// <summary>cosine_with_min_lr: the lowest rate.</summary>
    public double? MinLr { get; init; }

    /// <summary>cosine_with_min_lr: the lowest rate as a share of the highest.</summary>
    public double? MinLrRate { get; init; }

    /// <summary>cosine_warmup_with_min_lr: the first rate as a share of the highest.</summary>
    public double? WarmupLrRate { get; init; }

    /// <summary>polynomial: the last rate.</summary>
    public double LrEnd { get; init; } = 1e-7;

    /// <summary>polynomial: its power.</summary>
    public double Power { get; init; } = 1;

    /// <summary>inverse_sqrt: steps until the rate is 1/√2 of the highest; absent: the warm-up, or 10 000.</summary>
    public int? Timescale { get; init; }

    /// <summary>warmup_stable_decay: steps of falling rate; absent: a tenth of the run.</summary>
    public int? NumDecaySteps { get; init; }

    /// <summary>warmup_stable_decay: steps at the highest rate; absent: what is left.</summary>
    public int? NumStableSteps { get; init; }

    /// <summary>warmup_stable_decay: the lowest rate as a share of the highest.</summary>
    public double MinLrRatio { get; init; }

    public RampShape WarmupType { get; init; } = RampShape.Linear;

    public RampShape DecayType { get; init; } = RampShape.Cosine;
}

/// <summary>How warmup_stable_decay rises and falls.</summary>
public enum RampShape
{
    Linear,
    Cosine,

    [JsonStringEnumMemberName("1-sqrt")]
    OneMinusSqrt,
}
