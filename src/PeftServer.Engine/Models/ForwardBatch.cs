using PeftServer.Engine.Adapters;

namespace PeftServer.Engine.Models;

/// <summary>
/// What goes through a model at once: the tokens of several sequences one after another, without padding. Training rows, a
/// prompt and one-token decoding over many sequences are all this; the attention backend knows which.
/// </summary>
public sealed class ForwardBatch : IDisposable
{
    private Tensor? _tokenTypes;

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

    /// <summary>Segment of each token [n], for models that tell segments apart; 0 where the caller does not say.</summary>
    public Tensor TokenTypes => _tokenTypes ??= zeros_like(Ids).DetachFromDisposeScope();

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
    /// What the sequences of an encoder-decoder's decoder look at: encoded texts, one for each sequence, in their order. Not owned.
    /// </summary>
    public IReadOnlyList<EncodedSource> Sources { get; private init; } = [];

    /// <summary>
    /// Whole sequences under one set of adapters: training rows or prompts, positions counting from 0. Sequences attend to
    /// themselves alone, and a decoder's to <paramref name="source"/>, which holds as many texts. <paramref name="tokenTypes"/>
    /// gives each token's segment.
    /// </summary>
    public static ForwardBatch Packed(
        IReadOnlyList<int[]> sequences, IReadOnlyList<Adapter> adapters, Device device, Generator? dropout = null, EncodedSource? source = null,
        IReadOnlyList<int[]>? tokenTypes = null)
    {
        var (ids, positions, starts) = Laid(sequences, device);
        return new ForwardBatch(ids, positions, starts, [new AdapterRun(adapters, 0, starts[^1])], new PackedAttention(starts))
        {
            Dropout = dropout,
            Sources = source is null ? [] : [source],
            _tokenTypes = tokenTypes is null ? null : tensor(tokenTypes.SelectMany(types => types.Select(type => (long)type)).ToArray(), device: device).DetachFromDisposeScope(),
        };
    }

    /// <summary>
    /// As <see cref="Packed"/>, with every sequence padded to the longest by <paramref name="pad"/>: tokens do not see padding, padding
    /// sees tokens. For what looks at the states of padding as well, as transformers' loss for answers does.
    /// </summary>
    public static ForwardBatch Padded(IReadOnlyList<int[]> sequences, int pad, IReadOnlyList<Adapter> adapters, Device device, Generator? dropout = null)
    {
        var width = sequences.Max(sequence => sequence.Length);
        var rows = sequences.Select(sequence => sequence.Concat(Enumerable.Repeat(pad, width - sequence.Length)).ToArray()).ToList();
        var (ids, positions, starts) = Laid(rows, device);
        var attention = new PaddedAttention(width, [.. sequences.Select(sequence => sequence.Length)]);
        return new ForwardBatch(ids, positions, starts, [new AdapterRun(adapters, 0, starts[^1])], attention) { Dropout = dropout };
    }

    private static (Tensor Ids, Tensor Positions, int[] Starts) Laid(IReadOnlyList<int[]> sequences, Device device)
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

        return (tensor(ids, device: device), tensor(positions, device: device), starts);
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
        return new ForwardBatch(tensor(ids.ToArray(), device: device), tensor(positions.ToArray(), device: device), starts, runs, attention)
        {
            Sources = [.. sequences.Select(sequence => sequence.Source).OfType<EncodedSource>()],
        };
    }

    /// <summary>Hidden states picked for the head, a run of rows for each set of adapters: nothing attends.</summary>
    public static ForwardBatch Heads(IReadOnlyList<AdapterRun> rows, Device device, Generator? dropout = null)
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
            empty(0, dtype: ScalarType.Int64, device: device), empty(0, dtype: ScalarType.Int64, device: device), [0, count], runs, new PackedAttention([0, count]))
        {
            Dropout = dropout,
        };
    }

    /// <summary>One row for each sequence of this batch, under the same adapters: what a sequence classifier scores.</summary>
    public ForwardBatch PerSequence() =>
        Heads([.. Runs.Select(run => new AdapterRun(run.Adapters, 0, Starts.Take(SequenceCount).Count(start => start >= run.Start && start < run.Start + run.Count)))], Ids.device, Dropout);

    public void Dispose()
    {
        Ids.Dispose();
        Positions.Dispose();
        _tokenTypes?.Dispose();
    }
}

/// <summary>
/// A sequence in generation: the tokens to feed now, the keys and values of those before, and in an encoder-decoder the encoded
/// text.
/// </summary>
public sealed record CachedSequence(IReadOnlyList<int> Tokens, KeyValueCache Cache, IReadOnlyList<Adapter> Adapters, EncodedSource? Source = null);
