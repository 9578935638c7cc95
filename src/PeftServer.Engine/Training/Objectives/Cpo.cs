using System.ComponentModel.DataAnnotations;
using PeftServer.Engine.Native;

namespace PeftServer.Engine.Training.Objectives;

/// <summary>
/// Preference objectives without a reference: CPO (<see href="https://arxiv.org/abs/2401.08417"/>), SimPO
/// (<see href="https://arxiv.org/abs/2405.14734"/>), AlphaPO (<see href="https://arxiv.org/abs/2501.03884"/>).
/// <para>
/// c and r are a pair's log-probabilities: SUMS over the completion for sigmoid and hinge, MEANS for ipo and simpo; with α &gt; 0 they become
/// (1 − p^−α)/α. The loss is the mean over pairs of −(1 − e)·log σ(β(c − r)) − e·log σ(−β(c − r)), of max(0, 1 − β(c − r)), of
/// (c − r − 1/2β)², or of −log σ(β(c − r) − γ); plus cpo_alpha times the mean of −log p over ALL chosen tokens of the batch.
/// </para>
/// </summary>
internal static class Cpo
{
    /// <param name="policy">The batch, [all chosen; all rejected].</param>
    /// <param name="settings">The variant.</param>
    public static ObjectiveResult Loss(TokenScores policy, CpoSettings settings)
    {
        using var scope = NewDisposeScope();
        var pairs = policy.Rows / 2;
        var sums = policy.SumByRow(policy.LogProbs);
        var logProbs = settings.LossType is CpoLossType.Ipo or CpoLossType.Simpo ? sums.div(policy.Lengths()) : sums;
        var (chosen, rejected) = (logProbs.narrow(0, 0, pairs), logProbs.narrow(0, pairs, pairs));
        var likelihood = policy.LogProbs.narrow(0, 0, policy.FirstHalf).mean().neg();

        var margin = Shaped(chosen, settings.Alpha).Minus(Shaped(rejected, settings.Alpha));
        var loss = PairLoss(margin, settings).mean().Plus(likelihood.Times(settings.CpoAlpha));

        var metrics = PreferenceMetrics.Of(policy, chosen, rejected, Shaped(chosen, settings.Alpha), Shaped(rejected, settings.Alpha), settings.Beta);
        metrics["nll_loss"] = likelihood.detach().Times(settings.CpoAlpha > 0 ? 1 : 0); // 0 where it does not count
        return new ObjectiveResult(loss, metrics).MoveToOuterDisposeScope();
    }

    private static Tensor PairLoss(Tensor margin, CpoSettings settings)
    {
        var (d, e) = (margin.Times(settings.Beta), settings.LabelSmoothing);
        return settings.LossType switch
        {
            CpoLossType.Hinge => d.Complement().relu(),
            CpoLossType.Ipo => margin.Plus(-1 / (2 * settings.Beta)).square(),
            CpoLossType.Simpo => Smoothed(d.Plus(-settings.SimpoGamma), e),
            _ => Smoothed(d, e),
        };
    }

    private static Tensor Smoothed(Tensor d, double e) => d.LogSigmoid().Times(-(1 - e)).Minus(d.neg().LogSigmoid().Times(e));

    private static Tensor Shaped(Tensor logProb, double alpha) =>
        alpha == 0 ? logProb : logProb.Times(-alpha).exp().Complement().Times(1 / alpha);
}

/// <summary>Settings of CPO and SimPO, under TRL's names.</summary>
public record CpoSettings
{
    public CpoLossType LossType { get; init; } = CpoLossType.Sigmoid;

    /// <summary>Scale of the preference; SimPO takes 2 or more.</summary>
    [Range(1e-6, 1e3)]
    public double Beta { get; init; } = 0.1;

    /// <summary>How likely it is that a preference is the wrong way round.</summary>
    [Range(0.0, 0.499)]
    public double LabelSmoothing { get; init; }

    /// <summary>Weight of the likelihood of the chosen completions; SimPO takes 0.</summary>
    [Range(0.0, 1e3)]
    public double CpoAlpha { get; init; } = 1;

    /// <summary>SimPO's γ: the margin by which the chosen completion shall win.</summary>
    [Range(0.0, 1e3)]
    public double SimpoGamma { get; init; } = 0.5;

    /// <summary>AlphaPO's α: the shape of the reward; 0 is the log-probability itself.</summary>
    [Range(-10.0, 10.0)]
    public double Alpha { get; init; }
}

public enum CpoLossType
{
    Sigmoid,
    Hinge,
    Ipo,
    Simpo,
}

/// <summary>Settings of SimPO (<see href="https://arxiv.org/abs/2405.14734"/>) and AlphaPO, under TRL's names.</summary>
public record SimpoSettings
{
    /// <summary>Factor of the mean log-probabilities.</summary>
    [Range(1e-6, 1e3)]
    public double Beta { get; init; } = 2;

    /// <summary>By how much the better answer shall win.</summary>
    [Range(0.0, 1e3)]
    public double SimpoGamma { get; init; } = 0.5;

    /// <summary>Weight of the likelihood of the chosen answers; above 0 it is CPO-SimPO.</summary>
    [Range(0.0, 1e3)]
    public double CpoAlpha { get; init; }

    /// <summary>AlphaPO's α; 0: log-probabilities as they are.</summary>
    [Range(-10.0, 10.0)]
    public double Alpha { get; init; }

    internal CpoSettings ToCpo() => new() { LossType = CpoLossType.Simpo, Beta = Beta, SimpoGamma = SimpoGamma, CpoAlpha = CpoAlpha, Alpha = Alpha };
}
