using PeftServer.Engine.Adapters;

namespace PeftServer.Engine.Models;

/// <summary>
/// What goes through a model at once: the tokens of several sequences one after another, without padding. Training rows, a
/// prompt and one-token decoding over many sequences are all this; the attention backend knows which.
/// </summary>
public sealed class ForwardBatch : IDisposable
{
    private readonly IReadOnlyList<AttentionPrefix> _prefixes;
    private readonly Dictionary<object, Tensor> _made = [];
    private IReadOnlyList<CachedSequence>? _cached;
    private IReadOnlyList<int> _pasts = [];
    private Tensor? _tokenTypes;
    private IReadOnlyList<int> _realLengths = [];

    private ForwardBatch(
        Tensor ids, Tensor positions, IReadOnlyList<int> starts, IReadOnlyList<AdapterRun> runs, AttentionBackend attention,
        IReadOnlyList<int>? promptRows = null, IReadOnlyList<AttentionPrefix>? prefixes = null)
    {
        Ids = ids.DetachFromDisposeScope();
        Positions = positions.DetachFromDisposeScope();
        (Starts, Runs, Attention, PromptRows, _prefixes) = (starts, runs, AdaptedAttention.Of(attention, runs), promptRows ?? new int[starts.Count - 1], prefixes ?? []);
    }

    /// <summary>Token ids [n]; 0 in the rows of a prompt, which has none.</summary>
    public Tensor Ids { get; }

    /// <summary>Position of each token in its sequence [n].</summary>
    public Tensor Positions { get; }

    /// <summary>Segment of each token [n], for models that tell segments apart; 0 where the caller does not say.</summary>
    public Tensor TokenTypes => _tokenTypes ??= zeros_like(Ids).DetachFromDisposeScope();

    /// <summary>Where each sequence begins among the tokens, its prompt included, and at the end how many tokens there are.</summary>
    public IReadOnlyList<int> Starts { get; }

    /// <summary>For each sequence the rows at its beginning that are an adapter's prompt, not tokens of its own.</summary>
    public IReadOnlyList<int> PromptRows { get; }

    public int TokenCount => Starts[^1];

    public int SequenceCount => Starts.Count - 1;

    /// <summary>The tokens of a sequence that are not padding, those of a prompt included.</summary>
    internal int RealLength(int sequence) => _realLengths.Count == 0 ? Starts[sequence + 1] - Starts[sequence] : _realLengths[sequence];

    /// <summary>The adapters of each run of tokens, in order, covering all of them.</summary>
    public IReadOnlyList<AdapterRun> Runs { get; }

    public AttentionBackend Attention { get; }

    /// <summary>The ids of each sequence in this batch, where it holds tokens rather than rows for a head.</summary>
    internal IReadOnlyList<IReadOnlyList<int>> Sequences { get; private init; } = [];

    /// <summary>What is kept of each sequence's past; empty where sequences are whole.</summary>
    internal IReadOnlyList<KeyValueCache> Caches { get; private init; } = [];

    /// <summary>Draws what is dropped in training; null outside of it.</summary>
    public Generator? Dropout { get; init; }

    /// <summary>The task that each sequence is of, for adapters that know several; empty: task 0.</summary>
    public IReadOnlyList<int> Tasks { get; init; } = [];

    /// <summary>The task of a sequence.</summary>
    public int TaskOf(int sequence) => Tasks.Count == 0 ? 0 : Tasks[sequence];

    /// <summary>
    /// What the sequences of an encoder-decoder's decoder look at: encoded texts, one for each sequence, in their order. Not owned.
    /// </summary>
    public IReadOnlyList<EncodedSource> Sources { get; private init; } = [];

    /// <summary>
    /// Whole sequences under one set of adapters: training rows or prompts. Positions count from 0, behind what the adapters put before a
    /// sequence. Sequences attend to themselves alone, and a decoder's to <paramref name="source"/>, which holds as many texts.
    /// <paramref name="tokenTypes"/> gives each token's segment; <paramref name="encodes"/>: these are an encoder-decoder's texts.
    /// </summary>
    public static ForwardBatch Packed(
        IReadOnlyList<int[]> sequences, IReadOnlyList<Adapter> adapters, Device device, Generator? dropout = null, IReadOnlyList<int>? tasks = null,
        EncodedSource? source = null, IReadOnlyList<int[]>? tokenTypes = null, bool encodes = false)
    {
        var (ids, positions, starts, prompt, prefixes) = Laid(sequences, adapters, device, encodes, takesPrompts: source is null);
        return new ForwardBatch(
            ids, positions, starts, [new AdapterRun(adapters, 0, starts[^1])], new PackedAttention(starts, prefixes.Count == 0 ? null : _ => prefixes), [.. sequences.Select(_ => prompt)], prefixes)
        {
            Dropout = dropout,
            Tasks = tasks ?? [],
            Sequences = sequences,
            Sources = source is null ? [] : [source],
            _tokenTypes = tokenTypes is null ? null
                : tensor(tokenTypes.SelectMany(types => Enumerable.Repeat(0L, prompt).Concat(types.Select(type => (long)type))).ToArray(), device: device).DetachFromDisposeScope(),
        };
    }

    /// <summary>
    /// Whole sequences, each under adapters of its own; those with the same ones should stand together. What AdapterHub calls Parallel (all
    /// sequences once for each adapter) and BatchSplit is this.
    /// </summary>
    public static ForwardBatch Mixed(IReadOnlyList<(int[] Tokens, IReadOnlyList<Adapter> Adapters)> sequences, Device device)
    {
        var groups = new List<(IReadOnlyList<Adapter> Adapters, List<int[]> Rows)>();
        foreach (var (tokens, adapters) in sequences)
        {
            if (groups is not [.., var last] || !last.Adapters.SequenceEqual(adapters))
            {
                groups.Add((adapters, []));
            }

            groups[^1].Rows.Add(tokens);
        }

        using var scope = NewDisposeScope();
        var laid = groups.ConvertAll(group => Laid(group.Rows, group.Adapters, device));
        var (starts, runs, prompts, prefixes) = (new List<int> { 0 }, new List<AdapterRun>(), new List<int>(), new List<IReadOnlyList<AttentionPrefix>>());
        for (var i = 0; i < groups.Count; i++)
        {
            var from = starts[^1];
            runs.Add(new AdapterRun(groups[i].Adapters, from, laid[i].Starts[^1]));
            starts.AddRange(laid[i].Starts.Skip(1).Select(start => from + start));
            prompts.AddRange(groups[i].Rows.Select(_ => laid[i].Prompt));
            prefixes.AddRange(groups[i].Rows.Select(_ => laid[i].Prefixes));
        }

        return new ForwardBatch(
            cat([.. laid.Select(part => part.Ids)], 0), cat([.. laid.Select(part => part.Positions)], 0), starts, runs, new PackedAttention(starts, i => prefixes[i]),
            prompts, [.. laid.SelectMany(part => part.Prefixes)]);
    }

    /// <summary>
    /// As <see cref="Packed"/>, with every sequence padded to the longest by <paramref name="pad"/>: tokens do not see padding, padding
    /// sees tokens. For what looks at the states of padding as well, as transformers' loss for answers does.
    /// </summary>
    public static ForwardBatch Padded(IReadOnlyList<int[]> sequences, int pad, IReadOnlyList<Adapter> adapters, Device device, Generator? dropout = null)
    {
        var width = sequences.Max(sequence => sequence.Length);
        var rows = sequences.Select(sequence => sequence.Concat(Enumerable.Repeat(pad, width - sequence.Length)).ToArray()).ToList();
        var (ids, positions, starts, prompt, prefixes) = Laid(rows, adapters, device);
        var lengths = sequences.Select(sequence => prompt + sequence.Length).ToList();
        var attention = new PaddedAttention(prompt + width, lengths, prefixes);
        return new ForwardBatch(
            ids, positions, starts, [new AdapterRun(adapters, 0, starts[^1])], attention, [.. sequences.Select(_ => prompt)], prefixes)
        {
            Dropout = dropout,
            _realLengths = lengths,
        };
    }

    /// <summary>Rows of ids and positions [rows, width] under one set of adapters, in a layout that <paramref name="attention"/> knows.</summary>
    internal static ForwardBatch Rows(
        Tensor ids, Tensor positions, IReadOnlyList<Adapter> adapters, Func<IReadOnlyList<AttentionPrefix>, AttentionBackend> attention)
    {
        var (rows, width) = ((int)ids.size(0), (int)ids.size(1));
        var prefixes = adapters.Select(adapter => adapter.CreatePrefix()).OfType<AttentionPrefix>().ToList();
        return new ForwardBatch(
            ids.flatten(), positions.flatten(), [.. Enumerable.Range(0, rows + 1).Select(row => row * width)], [new AdapterRun(adapters, 0, rows * width)],
            attention(prefixes), null, prefixes);
    }

    private static (Tensor Ids, Tensor Positions, int[] Starts, int Prompt, List<AttentionPrefix> Prefixes) Laid(
        IReadOnlyList<int[]> sequences, IReadOnlyList<Adapter> adapters, Device device, bool encodes = false, bool takesPrompts = true)
    {
        var prompt = takesPrompts ? adapters.Sum(adapter => adapter.PromptRows) : 0; // with an encoder they are its text's
        var prefixes = adapters.Select(adapter => encodes ? adapter.CreateEncoderPrefix() : adapter.CreatePrefix()).OfType<AttentionPrefix>().ToList();
        var first = FirstPosition(adapters, prefixes);
        var starts = new int[sequences.Count + 1];
        for (var i = 0; i < sequences.Count; i++)
        {
            starts[i + 1] = starts[i] + prompt + sequences[i].Length;
        }

        var ids = new long[starts[^1]];
        var positions = new long[starts[^1]];
        for (var i = 0; i < sequences.Count; i++)
        {
            for (var j = 0; j < prompt + sequences[i].Length; j++)
            {
                (ids[starts[i] + j], positions[starts[i] + j]) = (j < prompt ? 0 : sequences[i][j - prompt], Math.Max(0, first + j));
            }
        }

        return (tensor(ids, device: device), tensor(positions, device: device), starts, prompt, prefixes);
    }

    /// <summary>
    /// The next tokens of sequences whose past a cache holds; sequences that share adapters stand together. What adapters put before a sequence
    /// goes in with its first tokens.
    /// </summary>
    public static ForwardBatch Cached(IReadOnlyList<CachedSequence> sequences, Device device)
    {
        var starts = new int[sequences.Count + 1];
        var prompts = new int[sequences.Count];
        var ids = new List<long>();
        var positions = new List<long>();
        var runs = new List<AdapterRun>();
        for (var i = 0; i < sequences.Count; i++)
        {
            var (tokens, cache, adapters) = (sequences[i].Tokens, sequences[i].Cache, sequences[i].Adapters);
            Begin(cache, adapters, takesPrompts: sequences[i].Source is null);
            prompts[i] = cache.PromptRows;
            var count = prompts[i] + tokens.Count;
            ids.AddRange(Enumerable.Repeat(0L, prompts[i]).Concat(tokens.Select(token => (long)token)));
            positions.AddRange(Enumerable.Range(cache.Position, count).Select(position => (long)Math.Max(0, position)));
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

        // What a cache cannot hold is made anew for every batch.
        var anew = sequences.Select(sequence => sequence.Adapters.Where(adapter => adapter.ReadsWholeSequences)
            .Select(adapter => adapter.CreatePrefix()).OfType<AttentionPrefix>().Where(prefix => !prefix.IsKept).ToList()).ToList();
        var attention = new CachedAttention(starts, [.. sequences.Select(sequence => sequence.Cache)], anew);
        return new ForwardBatch(tensor(ids.ToArray(), device: device), tensor(positions.ToArray(), device: device), starts, runs, attention, prompts, [.. anew.SelectMany(prefixes => prefixes)])
        {
            Sequences = [.. sequences.Select(sequence => sequence.Tokens)],
            Caches = [.. sequences.Select(sequence => sequence.Cache)],
            Sources = [.. sequences.Select(sequence => sequence.Source).OfType<EncodedSource>()],
            Tasks = sequences.Any(sequence => sequence.Task != 0) ? [.. sequences.Select(sequence => sequence.Task)] : [],
            _cached = sequences,
            _pasts = [.. sequences.Select(sequence => sequence.Cache.Length)],
        };
    }

    /// <summary>What adapters put before the keys and values of the sequences.</summary>
    internal IReadOnlyList<AttentionPrefix> Prefixes => _prefixes;

    /// <summary>Where the sequences' own tokens stand in this batch: places among own tokens to places among all, prompts included.</summary>
    public long[] PlacesOf(long[] tokens)
    {
        if (PromptRows.All(rows => rows == 0))
        {
            return tokens;
        }

        var places = Enumerable.Range(0, SequenceCount)
            .SelectMany(i => Enumerable.Range(Starts[i] + PromptRows[i], Starts[i + 1] - Starts[i] - PromptRows[i])).ToList();
        return Array.ConvertAll(tokens, token => (long)places[(int)token]);
    }

    /// <summary>Hidden states picked for the head, a run of rows for each set of adapters: nothing attends.</summary>
    public static ForwardBatch Heads(IReadOnlyList<AdapterRun> rows, Device device, IReadOnlyList<int>? tasks = null, Generator? dropout = null)
    {
        var (runs, count) = (new List<AdapterRun>(), 0);
        foreach (var row in rows)
        {
            if (runs is [.., var last] && last.Adapters.SequenceEqual(row.Adapters))
            {
                runs[^1] = last with { Count = last.Count + row.Count };
            }
            else
            {
                runs.Add(row with { Start = count });
            }

            count += row.Count;
        }

        var starts = Enumerable.Range(0, count + 1).ToList();
        return new ForwardBatch(empty(0, dtype: ScalarType.Int64, device: device), empty(0, dtype: ScalarType.Int64, device: device), starts, runs, new PackedAttention(starts))
        {
            Tasks = tasks ?? [],
            Dropout = dropout,
        };
    }

    /// <summary>The sequences among the tokens of <paramref name="run"/>: one after another.</summary>
    internal IEnumerable<SequenceSpan> SequencesOf(AdapterRun run) =>
        Enumerable.Range(0, SequenceCount).Where(i => Starts[i] >= run.Start && Starts[i] < run.Start + run.Count)
            .Select(i => new SequenceSpan(i, Starts[i] - run.Start, Starts[i + 1] - Starts[i], PromptRows[i], _pasts.Count == 0 ? 0 : _pasts[i]));

    /// <summary>One row for each sequence of this batch, under the same adapters: what a sequence classifier scores.</summary>
    public ForwardBatch PerSequence() =>
        Heads([.. Runs.Select(run => new AdapterRun(run.Adapters, 0, Starts.Take(SequenceCount).Count(start => start >= run.Start && start < run.Start + run.Count)))], Ids.device, Tasks, Dropout);

    /// <summary>A tensor that an adapter makes once for the whole batch, which keeps it and disposes of it.</summary>
    internal Tensor Once(object key, Func<Tensor> make)
    {
        if (!_made.TryGetValue(key, out var made))
        {
            _made[key] = made = GradientCheckpoints.Cut(make()).DetachFromDisposeScope();
        }

        return made;
    }

    /// <summary>The cached sequences of one run by themselves.</summary>
    internal ForwardBatch Only(AdapterRun run) =>
        Cached([.. Enumerable.Range(0, SequenceCount).Where(i => Starts[i] >= run.Start && Starts[i] < run.Start + run.Count).Select(i => _cached![i])], Ids.device);

    /// <summary>The tokens of a run by themselves, under other adapters, for a pass before this one. What is cached of it is kept apart.</summary>
    internal ForwardBatch FirstPass(AdapterRun run, IReadOnlyList<Adapter> adapters)
    {
        var sequences = Enumerable.Range(0, SequenceCount).Where(i => Starts[i] >= run.Start && Starts[i] < run.Start + run.Count).ToList();
        if (_cached is not null)
        {
            return Cached([.. sequences.Select(i => _cached[i] with { Cache = _cached[i].Cache.FirstPass, Adapters = adapters })], Ids.device);
        }

        var ids = Ids.cpu();
        using (ids)
        {
            var tokens = ids.data<long>().ToArray();
            return Packed([.. sequences.Select(i => tokens[Starts[i]..Starts[i + 1]].Select(id => (int)id).ToArray())], adapters, Ids.device);
        }
    }

    public void Dispose()
    {
        if (GradientCheckpoints.Keeps(this))
        {
            return;
        }

        foreach (var made in _made.Values)
        {
            made.Dispose();
        }

        Ids.Dispose();
        Positions.Dispose();
        _tokenTypes?.Dispose();
        foreach (var prefix in _prefixes)
        {
            prefix.Dispose();
        }
    }

    /// <summary>Position of a sequence's first row; below 0 where rows of a prompt take none.</summary>
    private static int FirstPosition(IReadOnlyList<Adapter> adapters, List<AttentionPrefix> prefixes) =>
        prefixes.Sum(prefix => prefix.Positions) - adapters.Where(adapter => !adapter.PromptTakesPositions).Sum(adapter => adapter.PromptRows);

    private static void Begin(KeyValueCache cache, IReadOnlyList<Adapter> adapters, bool takesPrompts)
    {
        if (!cache.HasBegun)
        {
            var prefixes = adapters.Select(adapter => adapter.CreatePrefix()).OfType<AttentionPrefix>().ToList();
            cache.Begin(takesPrompts ? adapters.Sum(adapter => adapter.PromptRows) : 0, FirstPosition(adapters, prefixes), [.. prefixes.Where(prefix => prefix.IsKept)]);
            prefixes.ForEach(prefix => prefix.Dispose());
        }
    }
}
