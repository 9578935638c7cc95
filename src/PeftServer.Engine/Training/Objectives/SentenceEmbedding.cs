namespace PeftServer.Engine.Training.Objectives;

/// <summary>One vector for each sequence, from those of its tokens.</summary>
internal static class SentenceEmbedding
{
    /// <summary>Means over the tokens of each sequence, in float32: [n, width] → [sequences, width].</summary>
    /// <param name="hidden">States of the tokens of several sequences, one after another.</param>
    /// <param name="starts">Where each sequence begins, and at the end how many tokens there are.</param>
    public static Tensor Mean(Tensor hidden, IReadOnlyList<int> starts)
    {
        using var scope = NewDisposeScope();
        var wide = hidden.to(ScalarType.Float32); // [n, width]
        var means = starts.Zip(starts.Skip(1), (start, end) => wide.narrow(0, start, end - start).mean([0])).ToArray(); // [width] each
        return stack(means).MoveToOuterDisposeScope(); // [sequences, width]
    }
}
