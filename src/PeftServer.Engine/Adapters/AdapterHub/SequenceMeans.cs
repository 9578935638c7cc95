using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters.AdapterHub;

/// <summary>A gate is one number for a sequence: the mean over its tokens.</summary>
internal static class SequenceMeans
{
    private static readonly long[] Rows = [0];

    /// <summary>x [n, k] of the run's tokens; the mean [k] of each sequence, by its number in the batch.</summary>
    public static List<(int Sequence, Tensor Mean)> Of(Tensor x, ForwardBatch batch, AdapterRun run) =>
        [.. batch.SequencesOf(run).Select(sequence => (sequence.Index, x.narrow(0, sequence.Start, sequence.Count).mean(Rows)))];

    /// <summary>x [n, k] of the run's tokens; the result has for every token the mean over its sequence.</summary>
    public static Tensor Spread(Tensor x, ForwardBatch batch, AdapterRun run)
    {
        using var scope = NewDisposeScope();
        var means = batch.SequencesOf(run)
            .Select(sequence => x.narrow(0, sequence.Start, sequence.Count).mean(Rows, keepdim: true).expand(sequence.Count, x.size(1))).ToArray();
        return cat(means, 0).MoveToOuterDisposeScope(); // [n, k]
    }
}
