using PeftServer.Engine.Adapters.Prompts;
using PeftServer.Engine.Data;

namespace PeftServer.Engine.Training;

/// <summary>
/// Rows that go through the model together, as arrays. The one place where targets are shifted: the hidden state of a token is
/// scored against the token after it, where that one trains.
/// </summary>
internal sealed record SftBatch
{
    private SftBatch(IReadOnlyList<int[]> sequences, long[] sources, long[] targets, int[] counts, int[] tasks) =>
        (Sequences, Sources, Targets, Counts, Tasks) = (sequences, sources, targets, counts, tasks);

    /// <summary>Token ids of each row.</summary>
    public IReadOnlyList<int[]> Sequences { get; }

    /// <summary>Tokens, counted through all rows, whose next token trains.</summary>
    public long[] Sources { get; }

    /// <summary>Those next tokens.</summary>
    public long[] Targets { get; }

    /// <summary>How many of the targets each row has; they stand row after row.</summary>
    public int[] Counts { get; }

    /// <summary>The task that each row is of.</summary>
    public int[] Tasks { get; }

    /// <summary>Targets in the prompt that an adapter puts before every row.</summary>
    public IReadOnlyList<PromptTarget> PromptTargets { get; init; } = [];

    /// <summary>What the loss is a mean over: targets of the rows, and of the prompts before them.</summary>
    public int LossCount => Targets.Length + (Sequences.Count * PromptTargets.Count);

    /// <summary>Where each row begins among all tokens, and at the end how many there are.</summary>
    public int[] Starts
    {
        get
        {
            var starts = new int[Sequences.Count + 1];
            for (var i = 0; i < Sequences.Count; i++)
            {
                starts[i + 1] = starts[i] + Sequences[i].Length;
            }

            return starts;
        }
    }

    public int TokenCount => Sequences.Sum(sequence => sequence.Length);

    /// <summary>The same rows in batches of at most <paramref name="maxTokens"/> each, where single rows allow it.</summary>
    public IReadOnlyList<SftBatch> Split(int maxTokens)
    {
        if (TokenCount <= maxTokens || Sequences.Count == 1)
        {
            return [this];
        }

        var (batches, starts, first, target) = (new List<SftBatch>(), Starts, 0, 0);
        for (var i = 0; i < Sequences.Count; i++)
        {
            if (i + 1 < Sequences.Count && starts[i + 2] - starts[first] <= maxTokens)
            {
                continue;
            }

            var last = target;
            while (last < Sources.Length && Sources[last] < starts[i + 1])
            {
                last++;
            }

            batches.Add(new SftBatch(
                [.. Sequences.Skip(first).Take(i + 1 - first)], Array.ConvertAll(Sources[target..last], source => source - starts[first]), Targets[target..last],
                Counts[first..(i + 1)], Tasks[first..(i + 1)])
            {
                PromptTargets = PromptTargets,
            });
            (first, target) = (i + 1, last);
        }

        return batches;
    }

    public static SftBatch Of(IEnumerable<TrainingRow> rows)
    {
        var (sequences, sources, targets, counts, tasks) = (new List<int[]>(), new List<long>(), new List<long>(), new List<int>(), new List<int>());
        var start = 0;
        foreach (var row in rows)
        {
            for (var i = 0; i + 1 < row.InputIds.Length; i++)
            {
                if (row.Trained[i + 1])
                {
                    sources.Add(start + i);
                    targets.Add(row.InputIds[i + 1]);
                }
            }

            sequences.Add(row.InputIds);
            counts.Add(row.TrainedCount);
            tasks.Add(row.Task);
            start += row.InputIds.Length;
        }

        return new SftBatch(sequences, [.. sources], [.. targets], [.. counts], [.. tasks]);
    }
}
