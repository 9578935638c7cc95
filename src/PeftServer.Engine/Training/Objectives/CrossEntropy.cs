using PeftServer.Engine.Native;

namespace PeftServer.Engine.Training.Objectives;

/// <summary>Cross-entropy of scores over classes, in float32, as sums: whoever knows the accumulation window divides.</summary>
internal static class CrossEntropy
{
    /// <param name="scores">Scores of every class, [m, classes].</param>
    /// <param name="targets">The right ones, [m].</param>
    /// <param name="smoothing">Share of the target that is spread over the classes.</param>
    /// <returns>The sum over the rows, and how many of them the scores have right.</returns>
    public static (Tensor Sum, Tensor Correct) Of(Tensor scores, Tensor targets, double smoothing = 0)
    {
        using var scope = NewDisposeScope();
        var all = F.log_softmax(scores.to(ScalarType.Float32), -1); // [m, classes]
        var sum = all.gather(-1, targets.unsqueeze(-1)).sum().neg();
        if (smoothing > 0)
        {
            sum = sum.Times(1 - smoothing).Minus(all.mean([-1]).sum().Times(smoothing));
        }

        using var frozen = no_grad();
        return (sum.MoveToOuterDisposeScope(), all.argmax(-1).eq(targets).to(ScalarType.Float32).sum().MoveToOuterDisposeScope());
    }
}
