using System.ComponentModel.DataAnnotations;
using PeftServer.Engine.Native;

namespace PeftServer.Engine.Training.Objectives;

/// <summary>
/// Supervised fine-tuning: the sum of −log p over the targets, divided by the targets of the WHOLE accumulation window, so that
/// k micro-batches of b rows are one batch of k·b. Full text, masked prompts and packed rows differ in which tokens are targets, not here.
/// <list type="bullet">
/// <item>Label smoothing e (<see href="https://arxiv.org/abs/1512.00567"/>): (1 − e)·nll + e·(mean over the vocabulary of −log p), same denominator.</item>
/// <item>DFT (<see href="https://arxiv.org/abs/2508.05629"/>): each target's −log p times its p, the latter without gradient.</item>
/// </list>
/// </summary>
internal static class Sft
{
    /// <summary>The loss of a micro-batch; those of a window add up to the window's.</summary>
    /// <param name="scores">The micro-batch.</param>
    /// <param name="windowTargets">Targets of all micro-batches of the window.</param>
    /// <param name="settings">The variant.</param>
    public static ObjectiveResult Loss(TokenScores scores, long windowTargets, SftSettings settings)
    {
        using var scope = NewDisposeScope();
        var loss = Sum(scores, settings).Times(1.0 / windowTargets);
        using var frozen = no_grad();
        var metrics = new Dictionary<string, Tensor>
        {
            ["entropy"] = scores.Entropies().mean(),
            ["mean_token_accuracy"] = scores.Correct().to(ScalarType.Float32).Times(1.0 / scores.Targets.numel()),
        };
        return new ObjectiveResult(loss, metrics).MoveToOuterDisposeScope();
    }

    /// <summary>The same before the division: a sum over targets.</summary>
    public static Tensor Sum(TokenScores scores, SftSettings settings)
    {
        using var scope = NewDisposeScope();
        var logProbs = settings.LossType is SftLossType.Dft ? scores.LogProbs.mul(scores.LogProbs.detach().exp()) : scores.LogProbs;
        var sum = logProbs.sum().neg();
        var smoothing = settings.LabelSmoothingFactor;
        if (smoothing > 0)
        {
            sum = sum.Times(1 - smoothing).Minus(scores.LogSoftmax.mean([-1]).sum().Times(smoothing));
        }

        return sum.MoveToOuterDisposeScope();
    }
}

/// <summary>Variants of supervised fine-tuning, under TRL's names.</summary>
public record SftSettings
{
    public SftLossType LossType { get; init; } = SftLossType.Nll;

    /// <summary>Share of the target that is spread over the vocabulary.</summary>
    [Range(0.0, 0.999)]
    public double LabelSmoothingFactor { get; init; }
}

public enum SftLossType
{
    Nll,
    Dft,
}
