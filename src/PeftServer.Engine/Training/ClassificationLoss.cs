using PeftServer.Engine.Models;

namespace PeftServer.Engine.Training;

/// <summary>The losses of models that score sequences, tokens or answers, as transformers computes them: in float32, means over the batch.</summary>
public static class ClassificationLoss
{
    /// <summary>
    /// Scores [m, labels] against what is right. One label of many, or the right token: whole numbers [m], −100 where none counts.
    /// Several labels at once: 0 or 1 for each, [m, labels]. A number: [m] or [m, labels].
    /// </summary>
    public static Tensor Of(ProblemType problem, Tensor scores, Tensor labels)
    {
        using var scope = NewDisposeScope();
        var wide = scores.to(ScalarType.Float32);
        return (problem switch
        {
            ProblemType.Regression => F.mse_loss(wide.reshape(labels.shape), labels.to(ScalarType.Float32)),
            ProblemType.MultiLabel => F.binary_cross_entropy_with_logits(wide, labels.to(ScalarType.Float32)),
            _ => F.cross_entropy(wide, labels),
        }).MoveToOuterDisposeScope();
    }

    /// <summary>
    /// Scores [rows, width, 2] of each token to begin or end the answer, against the two right places [rows]. Every column of the
    /// padded rows takes part in the softmax; an answer outside of the row does not count.
    /// </summary>
    public static Tensor OfSpans(Tensor scores, Tensor begins, Tensor ends)
    {
        using var scope = NewDisposeScope();
        var sides = scores.to(ScalarType.Float32).unbind(-1); // [rows, width]
        var width = scores.size(1);
        using var first = 0L.ToScalar();
        using var outside = width.ToScalar();
        Tensor Side(Tensor side, Tensor places) => F.cross_entropy(side, places.clamp(first, outside), ignore_index: width);
        using var half = 0.5.ToScalar();
        return Side(sides[0], begins).add(Side(sides[1], ends), Native.TensorArithmetic.One).mul(half).MoveToOuterDisposeScope();
    }
}
