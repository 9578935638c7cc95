using System.ComponentModel.DataAnnotations;
using PeftServer.Engine.Native;

namespace PeftServer.Engine.Training.Objectives;

/// <summary>
/// Kahneman-Tversky optimization (<see href="https://arxiv.org/abs/2402.01306"/>): completions that are good or bad, without pairs.
/// <para>
/// With u = log π − log π_ref, SUMMED over a completion, and z one number for the batch, a good row's loss is 1 − σ(β(u − z)), a bad one's
/// 1 − σ(β(z − u)), each times its weight; the loss is the mean over ALL rows, weights not renormalised. z estimates the divergence from the
/// reference: the mean of u over mismatched rows (prompt i with completion i − 1 of the same batch), at least 0, without gradient.
/// apo_zero_unpaired (<see href="https://arxiv.org/abs/2408.06266"/>) has none: 1 − σ(βu) and σ(βu).
/// </para>
/// </summary>
internal static class Kto
{
    /// <param name="policy">The batch under the policy.</param>
    /// <param name="referenceLogProbs">The same targets under the reference, [m].</param>
    /// <param name="desirable">Which rows are good.</param>
    /// <param name="divergence">z, from <see cref="Divergence"/>; not used by apo_zero_unpaired.</param>
    /// <param name="settings">The variant.</param>
    public static ObjectiveResult Loss(TokenScores policy, Tensor referenceLogProbs, IReadOnlyList<bool> desirable, Tensor? divergence, KtoSettings settings)
    {
        using var scope = NewDisposeScope();
        var device = policy.LogProbs.device;
        var sums = policy.SumByRow(policy.LogProbs);
        var ratio = sums.Minus(policy.SumByRow(referenceLogProbs)); // [rows]
        var sign = tensor(desirable.Select(good => good ? 1f : -1f).ToArray(), device: device);
        var weights = tensor(desirable.Select(good => (float)(good ? settings.DesirableWeight : settings.UndesirableWeight)).ToArray(), device: device);

        var over = settings.LossType is KtoLossType.Kto ? ratio.Minus(divergence!) : ratio;
        var loss = over.mul(sign).Times(settings.Beta).sigmoid().Complement().mul(weights).mean();
        return new ObjectiveResult(loss, Metrics(policy, sums, ratio, desirable, settings.LossType is KtoLossType.Kto ? divergence : null, settings.Beta))
            .MoveToOuterDisposeScope();
    }

    /// <summary>z from the log-probabilities of mismatched rows under policy and reference.</summary>
    public static Tensor Divergence(TokenScores policy, Tensor referenceLogProbs)
    {
        using var scope = NewDisposeScope();
        using var frozen = no_grad();
        return policy.SumByRow(policy.LogProbs.Minus(referenceLogProbs)).mean().clamp_min(TensorArithmetic.Zero).MoveToOuterDisposeScope();
    }

    /// <summary>
    /// Which row lends its completion to each row of a batch of <paramref name="rows"/>: the one before, the first takes the last's. A lone
    /// row keeps its own.
    /// </summary>
    public static IEnumerable<int> MismatchedCompletions(int rows) => Enumerable.Range(0, rows).Select(row => (row + rows - 1) % rows);

    private static Dictionary<string, Tensor> Metrics(
        TokenScores policy, Tensor sums, Tensor ratio, IReadOnlyList<bool> desirable, Tensor? divergence, double beta)
    {
        using var frozen = no_grad();
        var metrics = new Dictionary<string, Tensor>
        {
            ["entropy"] = policy.Entropies().mean(),
            ["kl"] = divergence?.clone() ?? zeros([]),
        };

        foreach (var (side, good) in new[] { ("chosen", true), ("rejected", false) })
        {
            var rows = Enumerable.Range(0, desirable.Count).Where(row => desirable[row] == good).Select(row => (long)row).ToArray();
            if (rows.Length > 0)
            {
                var index = tensor(rows, device: sums.device);
                var tokens = policy.SpreadOverTokens(tensor(desirable.Select(each => each == good).ToArray(), device: sums.device));
                metrics[$"rewards/{side}"] = ratio.index_select(0, index).mean().Times(beta);
                metrics[$"logps/{side}"] = sums.index_select(0, index).mean();
                metrics[$"logits/{side}"] = policy.Logits.index_select(0, tokens.nonzero().squeeze(-1)).mean();
            }
        }

        if (metrics.TryGetValue("rewards/chosen", out var chosen) && metrics.TryGetValue("rewards/rejected", out var rejected))
        {
            metrics["rewards/margins"] = chosen.Minus(rejected);
        }

        return metrics;
    }
}

/// <summary>Settings of KTO, under TRL's names.</summary>
public record KtoSettings
{
    public KtoLossType LossType { get; init; } = KtoLossType.Kto;

    /// <summary>How closely the policy is held to the reference: higher is closer.</summary>
    [Range(1e-6, 1e3)]
    public double Beta { get; init; } = 0.1;

    /// <summary>What the policy is held to; absent: the adapter that the run starts from, frozen, or the base where it starts from none, as TRL's trainer does.</summary>
    public PreferenceReference? Reference { get; init; }

    /// <summary>Weight of good rows. Keep weight × count of good and bad rows within 1 : 1 and 4 : 3.</summary>
    [Range(0.0, 1e3)]
    public double DesirableWeight { get; init; } = 1;

    /// <summary>Weight of bad rows.</summary>
    [Range(0.0, 1e3)]
    public double UndesirableWeight { get; init; } = 1;
}

public enum KtoLossType
{
    Kto,
    ApoZeroUnpaired,
}
