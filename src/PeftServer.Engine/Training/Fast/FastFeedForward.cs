using PeftServer.Engine.Kernels;

namespace PeftServer.Engine.Training.Fast;

/// <summary>The part of a block behind attention, from the stream to its answer, forward and backward.</summary>
internal abstract class FastFeedForward : IDisposable
{
    /// <summary>What follows the trained matrices.</summary>
    public virtual IEnumerable<PackedBlock> Blocks => [];

    /// <summary>Columns that rows of the gradient of the answer need beside their own.</summary>
    public virtual long GradientRoom => 0;

    /// <summary>
    /// Writes x + delta to <paramref name="sum"/> where there is a delta, and what the stream takes to <paramref name="answer"/>; gives what
    /// the backward needs. All of [n, hidden].
    /// </summary>
    public abstract FeedForwardState Forward(Tensor x, Tensor? delta, Tensor? sum, Tensor answer);

    /// <summary>
    /// From rows of the gradient of the answer to that of the input, <paramref name="residual"/> included, written to <paramref name="dInput"/>.
    /// What was not kept is computed again; what was is used up.
    /// </summary>
    public abstract void Backward(Tensor gradRows, Tensor input, FeedForwardState? kept, Tensor residual, Tensor dInput);

    public abstract void Dispose();
}

/// <summary>What a feed-forward keeps for its backward.</summary>
internal abstract record FeedForwardState : IDisposable
{
    protected abstract IEnumerable<Tensor?> All { get; }

    public void MoveToOuterScope()
    {
        foreach (var tensor in All)
        {
            tensor?.MoveToOuterDisposeScope();
        }
    }

    public void Dispose()
    {
        foreach (var tensor in All)
        {
            tensor?.Dispose();
        }
    }
}
