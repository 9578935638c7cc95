using PeftServer.Engine.Adapters;

namespace PeftServer.Engine.Models;

/// <summary>
/// What goes through a model at once: the tokens of several sequences one after another, without padding. Training rows, a
/// prompt and one-token decoding over many sequences are all this; the attention backend knows which.
/// </summary>
public sealed class ForwardBatch : IDisposable
{
    private ForwardBatch(Tensor ids, Tensor positions, IReadOnlyList<int> starts, IReadOnlyList<AdapterRun> runs, AttentionBackend attention)
    {
        Ids = ids.DetachFromDisposeScope();
        Positions = positions.DetachFromDisposeScope();
        (Starts, Runs, Attention) = (starts, runs, attention);
    }

    /// <summary>Token ids [n].</summary>
    public Tensor Ids { get; }

    /// <summary>Position of each token in its sequence [n].</summary>
    public Tensor Positions { get; }

    /// <summary>Where each sequence begins among the tokens, and at the end how many tokens there are.</summary>
    public IReadOnlyList<int> Starts { get; }

    public int TokenCount => Starts[^1];

    public int SequenceCount => Starts.Count - 1;

    /// <summary>The adapters of each run of tokens, in order, covering all of them.</summary>
    public IReadOnlyList<AdapterRun> Runs { get; }

    public AttentionBackend Attention { get; }

    /// <summary>Draws what is dropped in training; null outside of it.</summary>
    public Generator? Dropout { get; init; }

    /// <summary>
    /// Whole sequences under one set of adapters: training rows or prompts, positions counting from 0. Sequences attend to
    /// themselves alone.
    /// </summary>
    public static ForwardBatch Packed(IReadOnlyList<int[]> sequences, IReadOnlyList<Adapter> adapters, Device device, Generator? dropout = null)
    {
        var starts = new int[sequences.Count + 1];
        for (var i = 0; i < sequences.Count; i++)
        {
            starts[i + 1] = starts[i] + sequences[i].Length;
        }

        var ids = new long[starts[^1]];
        var positions = new long[starts[^1]];
        for (var i = 0; i < sequences.Count; i++)
        {
            for (var j = 0; j < sequences[i].Length; j++)
            {
                (ids[starts[i] + j], positions[starts[i] + j]) = (sequences[i][j], j);
            }
        }

        return new ForwardBatch(
            tensor(ids, device: device), tensor(positions, device: device), starts, [new AdapterRun(adapters, 0, starts[^1])], new PackedAttention(starts))
        {
            Dropout = dropout,
        };
    }

    /// <summary>The next tokens of sequences whose past a cache holds; sequences that share adapters stand together.</summary>
    public static ForwardBatch Cached(IReadOnlyList<CachedSequence> sequences, Device device)
    {
        var starts = new int[sequences.Count + 1];
        var ids = new List<long>();
        var positions = new List<long>();
        var runs = new List<AdapterRun>();
        for (var i = 0; i < sequences.Count; i++)
        {
            var (tokens, past, adapters, count) = (sequences[i].Tokens, sequences[i].Cache.Length, sequences[i].Adapters, sequences[i].Tokens.Count);
            ids.AddRange(tokens.Select(token => (long)token));
            positions.AddRange(Enumerable.Range(past, count).Select(position => (long)position));
            starts[i + 1] = starts[i] + count;
            if (runs is [.., var last] && last.Adapters.SequenceEqual(adapters))
            {
                runs[^1] = last with { Count = last.Count + count };
            }
            else
            {
                runs.Add(new AdapterRun(adapters, starts[i], count));
            }
        }

        var attention = new CachedAttention(starts, [.. sequences.Select(sequence => sequence.Cache)]);
        return new ForwardBatch(tensor(ids.ToArray(), device: device), tensor(positions.ToArray(), device: device), starts, runs, attention);
    }

    /// <summary>Hidden states picked for the head, a run of rows for each set of adapters: nothing attends.</summary>
    public static ForwardBatch Heads(IReadOnlyList<AdapterRun> rows, Device device)
    {
        var runs = new List<AdapterRun>();
        foreach (var row in rows)
        {
            if (runs is [.., var last] && last.Adapters.SequenceEqual(row.Adapters))
            {
                runs[^1] = last with { Count = last.Count + row.Count };
            }
            else
            {
                runs.Add(row);
            }
        }

        var count = rows.Sum(row => row.Count);
        return new ForwardBatch(
            empty(0, dtype: ScalarType.Int64, device: device), empty(0, dtype: ScalarType.Int64, device: device), [0, count], runs, new PackedAttention([0, count]));
    }

    /// <summary>The sequences among the tokens of <paramref name="run"/>: where each begins in the run, and how many tokens it has.</summary>
    internal IEnumerable<SequenceSpan> SequencesOf(AdapterRun run) =>
        Enumerable.Range(0, SequenceCount).Where(i => Starts[i] >= run.Start && Starts[i] < run.Start + run.Count)
            .Select(i => new SequenceSpan(Starts[i] - run.Start, Starts[i + 1] - Starts[i]));

    /// <summary>One row for each sequence of this batch, under the same adapters: what a sequence classifier scores.</summary>
    public ForwardBatch PerSequence() =>
        Heads([.. Runs.Select(run => new AdapterRun(run.Adapters, 0, Starts.Take(SequenceCount).Count(start => start >= run.Start && start < run.Start + run.Count)))], Ids.device);

    public void Dispose()
    {
        Ids.Dispose();
        Positions.Dispose();
    }
}

/// <summary>A sequence among the tokens of a run.</summary>
internal readonly record struct SequenceSpan(int Start, int Count);

/// <summary>A sequence in generation: the tokens to feed now, and the keys and values of those before.</summary>
public sealed record CachedSequence(IReadOnlyList<int> Tokens, KeyValueCache Cache, IReadOnlyList<Adapter> Adapters);
