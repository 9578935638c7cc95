using System.ComponentModel.DataAnnotations;
using PeftServer.Engine.Native;

namespace PeftServer.Engine.Training.Objectives;

/// <summary>
/// Odds-ratio preference optimization (<see href="https://arxiv.org/abs/2403.07691"/>), without a reference.
/// <para>
/// c and r are MEAN log-probabilities over a completion. The loss is the mean of −log p over ALL tokens of the chosen rows of the batch,
/// prompt included, minus β times the mean over pairs of log σ(log odds), with log odds = (c − r) − (log(1 − eᶜ) − log(1 − eʳ)).
/// </para>
/// </summary>
internal static class Orpo
{
    /// <param name="policy">The batch, [all chosen; all rejected]; of the chosen rows every token is a target.</param>
    /// <param name="completion">1 for targets in a completion, 0 for those in a prompt, [m].</param>
    /// <param name="settings">The variant.</param>
    public static ObjectiveResult Loss(TokenScores policy, Tensor completion, OrpoSettings settings)
    {
        using var scope = NewDisposeScope();
        var pairs = policy.Rows / 2;
        var means = policy.SumByRow(policy.LogProbs.mul(completion)).div(policy.SumByRow(completion).clamp_min(TensorArithmetic.One));
        var (chosen, rejected) = (means.narrow(0, 0, pairs), means.narrow(0, pairs, pairs));
        var likelihood = policy.LogProbs.narrow(0, 0, policy.FirstHalf).mean().neg();

        var odds = chosen.Minus(rejected).Minus(chosen.exp().neg().log1p().Minus(rejected.exp().neg().log1p()));
        var ratio = odds.LogSigmoid();
        var loss = likelihood.Minus(ratio.mean().Times(settings.Beta));

        var metrics = PreferenceMetrics.Of(policy, chosen, rejected, chosen, rejected, settings.Beta);
        metrics["nll_loss"] = likelihood.detach();
        metrics["log_odds_ratio"] = ratio.detach().mean();
        metrics["log_odds_chosen"] = odds.detach().mean();
        return new ObjectiveResult(loss, metrics).MoveToOuterDisposeScope();
    }
}

/// <summary>Settings of ORPO, under TRL's names.</summary>
public record OrpoSettings
{
    /// <summary>Weight of the odds ratio (λ in the paper).</summary>
    [Range(1e-6, 1e3)]
    public double Beta { get; init; } = 0.1;
}
