using PeftServer.Engine.Kernels;
using PeftServer.Engine.Native;

namespace PeftServer.Engine.Training.Fast;

/// <summary>A <see cref="SublayerEnd"/>, forward and backward.</summary>
internal sealed class FastEnd(SublayerEnd end, BlockKernels kernels) : IDisposable
{
    private readonly NormWeights _norm = NormWeights.Of(end.Norm);

    /// <summary>Whether the backward needs what <see cref="Forward"/> took.</summary>
    public bool Normalizes => _norm.Form is not NormForm.None;

    /// <summary>
    /// Writes what the stream takes of <paramref name="answer"/> to <paramref name="target"/>, which is the answer itself where nothing is
    /// normed; gives what the backward of a norm needs.
    /// </summary>
    public Tensor? Forward(Tensor answer, Tensor target)
    {
        if (Normalizes)
        {
            var stats = _norm.NewStats(answer.size(0), answer.device);
            kernels.AddNorm(answer, null, _norm, null, target, stats);
            return stats;
        }

        if (end.Scale != 1)
        {
            target.Scale(end.Scale);
        }

        return null;
    }

    /// <summary>
    /// Rows with the gradient of the answer in their first <paramref name="width"/> columns, from <paramref name="gradRows"/> of what the
    /// stream took: the same rows where nothing is between.
    /// </summary>
    public Tensor Backward(Tensor gradRows, Tensor? answer, Tensor? stats, long width)
    {
        if (!Normalizes && end.Scale == 1)
        {
            return gradRows.alias();
        }

        using var scope = NewDisposeScope();
        var (rows, grad) = (empty_like(gradRows), gradRows.narrow(1, 0, width));
        var target = rows.narrow(1, 0, width);
        if (Normalizes)
        {
            kernels.NormBackward(grad, answer!, _norm, stats!, null, target);
        }
        else
        {
            target.copy_(grad);
            target.Scale(end.Scale);
        }

        return rows.MoveToOuterDisposeScope();
    }

    public void Dispose() => _norm.Dispose();
}
