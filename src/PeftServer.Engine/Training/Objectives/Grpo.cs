using PeftServer.Engine.Native;

namespace PeftServer.Engine.Training.Objectives;

/// <summary>
/// Group relative policy optimization (<see href="https://arxiv.org/abs/2402.03300"/>) and its relatives.
/// <para>
/// With ratio w = π/π_old of a token (GSPO, <see href="https://arxiv.org/abs/2507.18071"/>: the exponent of the mean log-ratio of its completion) and
/// advantage A, a token's loss is −min(w·A, clip(w, 1 − ε, 1 + ε_high)·A), w at most δ in the first branch
/// (<see href="https://arxiv.org/abs/2505.07291"/>). CISPO (<see href="https://arxiv.org/abs/2506.13585"/>): −min(w, ε_high)·A·log π, the first factor without
/// gradient. SAPO (<see href="https://arxiv.org/abs/2511.20347"/>): −(4/t)·σ(t(w − 1))·A. Plus β times the divergence from the reference,
/// exp(q) − q − 1 with q = log π_ref − log π, times w.
/// </para>
/// <para>
/// Normalisation: grpo and sapo, row means, then their mean; bnpo, tokens of the micro-batch; dr_grpo
/// (<see href="https://arxiv.org/abs/2503.20783"/>), rows × max_completion_length; luspo, row sums, then their mean; all divided by the number
/// of micro-batches. dapo (<see href="https://arxiv.org/abs/2503.14476"/>) and cispo: tokens of the window.
/// </para>
/// </summary>
internal static class Grpo
{
    /// <summary>The loss of a micro-batch; those of a window add up.</summary>
    /// <param name="policy">Completions under the policy; a row without targets counts as a row.</param>
    /// <param name="advantages">One for each row.</param>
    /// <param name="oldLogProbs">What the policy that wrote them said, [m]; null: this one.</param>
    /// <param name="referenceLogProbs">What the reference says, [m]; null where β is 0.</param>
    /// <param name="share">What this micro-batch is of its window.</param>
    /// <param name="settings">The variant.</param>
    public static ObjectiveResult Loss(
        TokenScores policy, IReadOnlyList<double> advantages, Tensor? oldLogProbs, Tensor? referenceLogProbs, GrpoShare share, GrpoSettings settings)
    {
        using var scope = NewDisposeScope();
        var (logProbs, metrics) = (policy.LogProbs, new Dictionary<string, Tensor>());
        var advantage = policy.SpreadOverTokens(tensor(advantages.Select(a => (float)a).ToArray(), device: logProbs.device)); // [m]
        var entropies = policy.Entropies(); // [m]
        var logRatio = logProbs.Minus(oldLogProbs ?? logProbs.detach()); // [m]
        var rowRatio = settings.ImportanceSamplingLevel is ImportanceSamplingLevel.Sequence
            ? policy.SumByRow(logRatio).div(policy.Lengths()).exp() // [rows]
            : null;
        var ratio = rowRatio is null ? logRatio.exp() : policy.SpreadOverTokens(rowRatio); // [m]

        var loss = TokenLoss(ratio, advantage, logProbs, settings);
        if (settings.TopEntropyQuantile < 1)
        {
            loss = loss.mul(entropies.detach().ge(entropies.detach().quantile(tensor((float)(1 - settings.TopEntropyQuantile), device: loss.device))));
        }

        if (settings.Beta > 0)
        {
            var away = referenceLogProbs!.Minus(logProbs);
            var divergence = away.exp().Minus(away).Plus(-1);
            divergence = settings.UseBiasCorrectionKl ? divergence.mul(ratio) : divergence;
            loss = loss.Plus(divergence.Times(settings.Beta));
            metrics["kl"] = MeanOf(divergence.detach());
        }

        var total = Reduce(policy, loss, share, settings);
        if (settings.EntropyCoef > 0)
        {
            metrics["policy_loss"] = total.detach();
            total = total.Minus(MeanOf(entropies).Times(settings.EntropyCoef * share.Tokens));
            metrics["entropy_coef"] = tensor((float)settings.EntropyCoef);
        }

        metrics["entropy"] = MeanOf(entropies.detach());
        var perRow = rowRatio is null ? advantage : tensor(advantages.Select(a => (float)a).ToArray(), device: logProbs.device);
        AddClipping(metrics, (rowRatio ?? ratio).detach(), perRow, settings);
        return new ObjectiveResult(total, metrics).MoveToOuterDisposeScope();
    }

    private static Tensor TokenLoss(Tensor ratio, Tensor advantage, Tensor logProbs, GrpoSettings settings)
    {
        var high = settings.EpsilonHigh ?? settings.Epsilon;
        switch (settings.LossType)
        {
            case GrpoLossType.Cispo:
                return ratio.detach().AtMost(high).mul(advantage).mul(logProbs).neg();
            case GrpoLossType.Sapo:
                var positive = advantage.gt(TensorArithmetic.Zero).to(ScalarType.Float32);
                var temperature = positive.Times(settings.SapoTemperaturePos - settings.SapoTemperatureNeg).Plus(settings.SapoTemperatureNeg);
                return ratio.Plus(-1).mul(temperature).sigmoid().div(temperature).mul(advantage).Times(-4);
            default:
                var free = settings.Delta is { } delta ? ratio.AtMost(delta) : ratio;
                var clipped = ratio.AtLeast(1 - settings.Epsilon).AtMost(1 + high);
                return minimum(free.mul(advantage), clipped.mul(advantage)).neg();
        }
    }

    private static Tensor Reduce(TokenScores policy, Tensor loss, GrpoShare share, GrpoSettings settings) => settings.LossType switch
    {
        GrpoLossType.Grpo or GrpoLossType.Sapo => policy.SumByRow(loss).div(policy.Lengths()).mean().Times(share.Rows),
        GrpoLossType.Luspo => policy.SumByRow(loss).mean().Times(share.Rows),
        GrpoLossType.Bnpo => loss.sum().Times(share.Tokens / Math.Max(1, loss.numel())),
        GrpoLossType.DrGrpo => loss.sum().Times(share.Rows / ((long)policy.Rows * settings.MaxCompletionLength)),
        GrpoLossType.Dapo or GrpoLossType.Cispo => loss.sum().Times(1 / share.WindowTargets),
        _ => throw new ArgumentOutOfRangeException(nameof(settings), settings.LossType, "There is no such loss."),
    };

    /// <summary>How often the ratio was clipped: of tokens, or of rows where the ratio is a row's.</summary>
    private static void AddClipping(Dictionary<string, Tensor> metrics, Tensor ratio, Tensor advantage, GrpoSettings settings)
    {
        using var frozen = no_grad();
        var (low, high) = (1 - settings.Epsilon, settings.EpsilonHigh ?? settings.Epsilon);
        switch (settings.LossType)
        {
            case GrpoLossType.Sapo:
                return;
            case GrpoLossType.Cispo:
                metrics["cispo_clip_ratio"] = Share(Beyond(ratio, high).logical_and(advantage.gt(TensorArithmetic.Zero)));
                return;
            default:
                var below = Beyond(ratio.neg(), -low).logical_and(advantage.lt(TensorArithmetic.Zero));
                var above = Beyond(ratio, 1 + high).logical_and(advantage.gt(TensorArithmetic.Zero));
                metrics["clip_ratio/low_mean"] = Share(below);
                metrics["clip_ratio/high_mean"] = Share(above);
                metrics["clip_ratio/region_mean"] = Share(below.logical_or(above));
                return;
        }
    }

    private static Tensor Beyond(Tensor x, double limit) => x.Plus(-limit).gt(TensorArithmetic.Zero);

    private static Tensor Share(Tensor flags) => MeanOf(flags.to(ScalarType.Float32));

    private static Tensor MeanOf(Tensor x) => x.numel() == 0 ? zeros([], device: x.device) : x.mean();
}

/// <summary>What a micro-batch is of its accumulation window.</summary>
/// <param name="WindowTargets">Tokens of the window that are learnt; with rollouts that serve several steps, those of a whole generation, as far as a step has a share in it.</param>
/// <param name="Rows">Its rows among those of the window, where micro-batches count alike: 1/k, or less where a micro-batch goes through the model in parts.</param>
/// <param name="Tokens">The same of its tokens.</param>
internal readonly record struct GrpoShare(double WindowTargets, double Rows, double Tokens);
