using PeftServer.Engine.Native;

namespace PeftServer.Engine.Training.Objectives;

/// <summary>
/// Direct preference optimization (<see href="https://arxiv.org/abs/2305.18290"/>) with the losses that grew from it.
/// <para>
/// A batch is [all chosen; all rejected]. With Δ = log π − log π_ref of a completion, SUMMED over its tokens, c and r those of a pair,
/// and d = β·(f(c) − f(r)), f the divergence's (the identity for reverse KL), a pair's loss is that of <see cref="DpoLossType"/>. The loss
/// is the mean over pairs; under accumulation each micro-batch's mean counts 1/k, whatever its tokens.
/// </para>
/// </summary>
internal static class Dpo
{
    /// <param name="policy">The batch under the policy.</param>
    /// <param name="referenceLogProbs">Log-probabilities of the same targets under the reference, [m].</param>
    /// <param name="settings">The variant.</param>
    public static ObjectiveResult Loss(TokenScores policy, Tensor referenceLogProbs, DpoSettings settings)
    {
        using var scope = NewDisposeScope();
        var pairs = new PreferencePairs(policy, referenceLogProbs, settings);
        var weights = settings.UseWeighting ? PolicyWeights(policy) : null;
        var loss = zeros([], device: policy.LogProbs.device);
        for (var i = 0; i < settings.LossType.Values.Count; i++)
        {
            var each = PairLoss(settings.LossType.Values[i], pairs, settings); // [pairs]
            each = weights is null ? each : each.mul(weights);
            loss = loss.Plus(each.mean().Times(settings.LossWeights?[i] ?? 1));
        }

        return new ObjectiveResult(loss, PreferenceMetrics.Of(policy, pairs.PolicyChosen, pairs.PolicyRejected, pairs.Chosen, pairs.Rejected, settings.Beta))
            .MoveToOuterDisposeScope();
    }

    private static Tensor PairLoss(DpoLossType type, PreferencePairs p, DpoSettings settings)
    {
        var (beta, e) = (settings.Beta, settings.LabelSmoothing);
        var (c, r) = (p.Chosen, p.Rejected);
        var d = p.ChosenScore.Minus(p.RejectedScore).Times(beta);
        return type switch
        {
            // DPO; with label smoothing conservative DPO (https://ericmitchell.ai/cdpo.pdf)
            DpoLossType.Sigmoid => Smoothed(d, e),

            // SLiC (https://arxiv.org/abs/2305.10425)
            DpoLossType.Hinge => d.Complement().relu(),

            // IPO (https://arxiv.org/abs/2310.12036), each log-ratio over its own completion's length
            DpoLossType.Ipo => p.ChosenScore.div(p.ChosenLength).Minus(p.RejectedScore.div(p.RejectedLength)).Plus(-1 / (2 * beta)).square(),

            // EXO (https://arxiv.org/abs/2402.00856), equation 16
            DpoLossType.ExoPair => d.sigmoid().mul(d.LogSigmoid().Plus(-Math.Log(1 - e)))
                .Plus(d.neg().sigmoid().mul(d.neg().LogSigmoid().Plus(-Math.Log(e)))),

            // NCA (https://arxiv.org/abs/2402.05369)
            DpoLossType.NcaPair => c.Times(beta).LogSigmoid().neg()
                .Minus(c.Times(-beta).LogSigmoid().Times(0.5)).Minus(r.Times(-beta).LogSigmoid().Times(0.5)),

            // Robust DPO (https://arxiv.org/abs/2403.00409)
            DpoLossType.Robust => d.LogSigmoid().Times(-(1 - e)).Plus(d.neg().LogSigmoid().Times(e)).Times(1 / (1 - (2 * e))),

            // BCO (https://arxiv.org/abs/2404.04656), without a running delta
            DpoLossType.BcoPair => c.Times(beta).LogSigmoid().neg().Minus(r.Times(-beta).LogSigmoid()),

            // SPPO (https://arxiv.org/abs/2405.00675) with hard labels
            DpoLossType.SppoHard => c.Plus(-0.5 / beta).square().Plus(r.Plus(0.5 / beta).square()),

            // AOT (https://arxiv.org/abs/2406.05882): sorted over the batch, so a loss depends on who shares it
            DpoLossType.Aot => Smoothed(
                Sorted(p.PolicyChosen.Minus(p.PolicyRejected)).Minus(Sorted(p.ReferenceChosen.Minus(p.ReferenceRejected))).Times(beta), e),
            DpoLossType.AotUnpaired => Smoothed(Sorted(c).Minus(Sorted(r)).Times(beta), e),

            // APO (https://arxiv.org/abs/2408.06266), equations 7 and 8
            DpoLossType.ApoZero => c.Times(beta).sigmoid().Complement().Plus(r.Times(beta).sigmoid()),
            DpoLossType.ApoDown => c.Times(beta).sigmoid().Plus(c.Minus(r).Times(beta).sigmoid().Complement()),

            // DiscoPOP (https://arxiv.org/abs/2406.08414): log-ratio modulated loss
            DpoLossType.Discopop => Discovered(d, d.Times(1 / settings.DiscopopTau).sigmoid()),

            // Length-normalised DPO (Tulu 3, https://arxiv.org/abs/2411.15124, equation 6)
            DpoLossType.SigmoidNorm => p.ChosenScore.div(p.ChosenLength).Minus(p.RejectedScore.div(p.RejectedLength)).Times(beta).LogSigmoid().neg(),

            // Iterative RPO's and MPO's likelihood term (https://arxiv.org/abs/2404.19733): mean over ALL chosen tokens of the batch
            DpoLossType.Sft => p.ChosenNegativeLogLikelihood.expand(c.shape),
            _ => throw new ArgumentOutOfRangeException(nameof(type), type, "There is no such loss."),
        };
    }

    private static Tensor Smoothed(Tensor d, double e) => d.LogSigmoid().Times(-(1 - e)).Minus(d.neg().LogSigmoid().Times(e));

    private static Tensor Discovered(Tensor d, Tensor mix) => d.LogSigmoid().neg().mul(mix.Complement()).Plus(d.neg().exp().mul(mix));

    private static Tensor Sorted(Tensor x) => x.sort(0).Values;

    /// <summary>WPO (<see href="https://arxiv.org/abs/2406.11827"/>): exp of the mean over a completion of log p − log Σ p², for both sides.</summary>
    private static Tensor PolicyWeights(TokenScores policy)
    {
        using var frozen = no_grad();
        var perToken = policy.LogProbs.Minus(policy.LogSoftmax.Times(2).logsumexp(-1));
        var weights = policy.SumByRow(perToken).div(policy.Lengths()).exp();
        var pairs = policy.Rows / 2;
        return weights.narrow(0, 0, pairs).mul(weights.narrow(0, pairs, pairs));
    }

    /// <summary>The log-probabilities of a batch, by pair. All are [pairs].</summary>
    private sealed class PreferencePairs
    {
        public PreferencePairs(TokenScores policy, Tensor referenceLogProbs, DpoSettings settings)
        {
            var pairs = policy.Rows / 2;
            var tokenWeights = settings.LdAlpha is { } alpha ? LengthWeights(policy, alpha) : null;
            var sums = policy.SumByRow(tokenWeights is null ? policy.LogProbs : policy.LogProbs.mul(tokenWeights));
            var reference = policy.SumByRow(tokenWeights is null ? referenceLogProbs : referenceLogProbs.mul(tokenWeights));
            var lengths = policy.Lengths();
            (PolicyChosen, PolicyRejected) = (sums.narrow(0, 0, pairs), sums.narrow(0, pairs, pairs));
            (ReferenceChosen, ReferenceRejected) = (reference.narrow(0, 0, pairs), reference.narrow(0, pairs, pairs));
            (ChosenLength, RejectedLength) = (lengths.narrow(0, 0, pairs), lengths.narrow(0, pairs, pairs));
            (Chosen, Rejected) = (PolicyChosen.Minus(ReferenceChosen), PolicyRejected.Minus(ReferenceRejected));
            (ChosenScore, RejectedScore) = (Divergence(Chosen, settings), Divergence(Rejected, settings));
            ChosenNegativeLogLikelihood = policy.LogProbs.narrow(0, 0, policy.FirstHalf).mean().neg();
        }

        public Tensor PolicyChosen { get; }

        public Tensor PolicyRejected { get; }

        public Tensor ReferenceChosen { get; }

        public Tensor ReferenceRejected { get; }

        /// <summary>Log-ratios to the reference.</summary>
        public Tensor Chosen { get; }

        public Tensor Rejected { get; }

        /// <summary>Log-ratios through the divergence.</summary>
        public Tensor ChosenScore { get; }

        public Tensor RejectedScore { get; }

        public Tensor ChosenLength { get; }

        public Tensor RejectedLength { get; }

        public Tensor ChosenNegativeLogLikelihood { get; }

        private static Tensor Divergence(Tensor u, DpoSettings settings) => settings.FDivergenceType switch
        {
            FDivergence.ReverseKl => u,
            FDivergence.ForwardKl => u.neg().exp().Complement(),
            FDivergence.JsDivergence => u.LogSigmoid().Plus(Math.Log(2)),
            FDivergence.AlphaDivergence => u.Times(settings.FAlphaDivergenceCoef - 1).exp().Plus(-1).Times(1 / (settings.FAlphaDivergenceCoef - 1)),
            _ => throw new ArgumentOutOfRangeException(nameof(settings), settings.FDivergenceType, "There is no such divergence."),
        };

        /// <summary>LD-DPO (<see href="https://arxiv.org/abs/2409.06411"/>): tokens beyond the shorter completion of a pair weigh less.</summary>
        private static Tensor LengthWeights(TokenScores policy, double alpha)
        {
            var pairs = policy.Rows / 2;
            var weights = new List<float>();
            for (var row = 0; row < policy.Rows; row++)
            {
                var shared = Math.Min(policy.Counts[row % pairs], policy.Counts[(row % pairs) + pairs]);
                weights.AddRange(Enumerable.Range(0, policy.Counts[row]).Select(at => at < shared ? 1f : (float)alpha));
            }

            return tensor(weights.ToArray(), device: policy.LogProbs.device);
        }
    }
}
