namespace PeftServer.Engine.Models;

/// <summary>One vector for each sequence out of the states of its tokens.</summary>
public static class Pooling
{
    /// <summary>The mean of each sequence's states [n, width]: [sequences, width], computed in float32.</summary>
    public static Tensor Mean(Tensor hidden, ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        var means = Enumerable.Range(0, batch.SequenceCount)
            .Select(i => hidden.narrow(0, batch.Starts[i], batch.Starts[i + 1] - batch.Starts[i]).mean([0L], type: ScalarType.Float32)).ToArray();
        return stack(means, 0).to(hidden.dtype).MoveToOuterDisposeScope();
    }
}
