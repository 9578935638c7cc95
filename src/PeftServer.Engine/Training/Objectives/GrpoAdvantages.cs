namespace PeftServer.Engine.Training.Objectives;

/// <summary>
/// Advantages of completions within their group: (reward − mean of the group) / (deviation + 10⁻⁴). The deviation has n − 1 below the line and is
/// that of the group, or of all rewards; dr_grpo and others divide by nothing. Equal rewards give 0.
/// </summary>
internal static class GrpoAdvantages
{
    private const double LeastDeviation = 1e-4;

    /// <summary>Rewards of all completions, those of one prompt together.</summary>
    public static double[] Of(IReadOnlyList<double> rewards, int generations, RewardScale scale)
    {
        if (rewards.Count == 0 || rewards.Count % generations != 0)
        {
            throw new ArgumentException($"{rewards.Count} rewards are not whole groups of {generations}.", nameof(rewards));
        }

        var ofAll = Deviation(rewards);
        return
        [
            .. rewards.Chunk(generations).SelectMany(group =>
            {
                var (mean, ofGroup) = (group.Average(), Deviation(group));
                var divisor = scale switch
                {
                    RewardScale.Group => ofGroup + LeastDeviation,
                    RewardScale.Batch => ofAll + LeastDeviation,
                    _ => 1,
                };
                return group.Select(reward => (reward - mean) / divisor);
            }),
        ];
    }

    private static double Deviation(IReadOnlyList<double> values)
    {
        var mean = values.Average();
        return values.Count < 2 ? 0 : Math.Sqrt(values.Sum(value => (value - mean) * (value - mean)) / (values.Count - 1));
    }
}
