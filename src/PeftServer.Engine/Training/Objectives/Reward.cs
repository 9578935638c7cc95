using System.ComponentModel.DataAnnotations;
using PeftServer.Engine.Native;

namespace PeftServer.Engine.Training.Objectives;

/// <summary>
/// Reward modelling by Bradley and Terry (<see href="https://arxiv.org/abs/2203.02155"/>): the mean over pairs of −log σ(c − r − margin), c and r the one
/// logit at a row's last token; plus coefficient · mean((c + r)²), which keeps rewards around 0 (<see href="https://arxiv.org/abs/2312.09244"/>).
/// </summary>
internal static class Reward
{
    /// <param name="rewards">[all chosen; all rejected], float32.</param>
    /// <param name="margins">By how much each chosen row shall win, [pairs]; null: 0.</param>
    /// <param name="settings">The variant.</param>
    public static ObjectiveResult Loss(Tensor rewards, Tensor? margins, RewardSettings settings)
    {
        using var scope = NewDisposeScope();
        var pairs = rewards.numel() / 2;
        var (chosen, rejected) = (rewards.narrow(0, 0, pairs), rewards.narrow(0, pairs, pairs));
        var difference = chosen.Minus(rejected);
        var loss = (margins is null ? difference : difference.Minus(margins)).LogSigmoid().mean().neg();
        if (settings.CenterRewardsCoefficient is { } coefficient)
        {
            loss = loss.Plus(chosen.Plus(rejected).square().mean().Times(coefficient));
        }

        using var frozen = no_grad();
        var metrics = new Dictionary<string, Tensor>
        {
            ["accuracy"] = chosen.gt(rejected).to(ScalarType.Float32).mean(),
            ["margin"] = difference.mean(),
            ["min_reward"] = rewards.min(),
            ["mean_reward"] = rewards.mean(),
            ["max_reward"] = rewards.max(),
        };
        return new ObjectiveResult(loss, metrics).MoveToOuterDisposeScope();
    }
}

/// <summary>Settings of reward modelling, under TRL's names.</summary>
public record RewardSettings
{
    /// <summary>Weight of the term that keeps rewards around 0; absent: no such term. 0.01 is usual.</summary>
    [Range(0.0, 1e3)]
    public double? CenterRewardsCoefficient { get; init; }
}
