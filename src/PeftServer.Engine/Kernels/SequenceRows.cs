namespace PeftServer.Engine.Kernels;

/// <summary>
/// Sequences side by side, each filled up to the length of the first, the longest. What fills them comes behind all tokens, which do not see
/// it; it is 0 in gradients, so none come of it.
/// </summary>
internal sealed class SequenceRows(IReadOnlyList<(int Start, int Length)> sequences) : IDisposable
{
    /// <summary>A sequence may be filled by this share of the longest it goes with.</summary>
    private const int Filling = 8;

    /// <summary>And by so many rows where that is more, but not by as many as it has itself: the calls for short sequences cost more than what they compute.</summary>
    private const int ShortFilling = 128;

    private readonly bool _isWhole = sequences.All(sequence => sequence.Length == sequences[0].Length)
        && sequences.Index().All(sequence => sequence.Item.Start == sequences[0].Start + (sequence.Index * sequences[0].Length));

    private Tensor? _tokens; // int64: of each row that is a token its number in the batch
    private Tensor? _places; // and where it stands here

    public int Length => sequences[0].Length;

    /// <summary>All sequences together where they are of one length, else those together that are of nearly one length, filled up to it.</summary>
    public static IEnumerable<SequenceRows> Of(PackedBorders borders)
    {
        if (borders.CommonLength is { } length)
        {
            yield return new SequenceRows([.. borders.Starts.SkipLast(1).Select(start => (start, length))]);
            yield break;
        }

        var group = new List<(int Start, int Length)>();
        foreach (var sequence in borders.Starts.Zip(borders.Starts.Skip(1), (start, end) => (Start: start, Length: end - start)).OrderByDescending(sequence => sequence.Length))
        {
            var longest = group.Count == 0 ? sequence.Length : group[0].Length;
            if (longest - sequence.Length > Math.Max(longest / Filling, Math.Min(ShortFilling, longest / 2)))
            {
                yield return new SequenceRows(group);
                group = [];
            }

            group.Add(sequence);
        }

        yield return new SequenceRows(group);
    }

    /// <summary>Rows of tokens [n, heads, D] as [B, T, heads, D]: a view where the sequences lie so.</summary>
    public Tensor Of(Tensor x)
    {
        if (_isWhole)
        {
            return View(x);
        }

        Find(x.device);
        var rows = zeros([sequences.Count * Length, x.size(1), x.size(2)], dtype: x.dtype, device: x.device);
        return rows.index_copy_(0, _places!, x.index_select(0, _tokens!)).unflatten(0, [sequences.Count, Length]);
    }

    /// <summary>Where results [B, T, heads, D] for <paramref name="x"/> are to be written: x itself where the sequences lie so.</summary>
    public Tensor Target(Tensor x) =>
        _isWhole ? View(x) : empty([sequences.Count, Length, x.size(1), x.size(2)], dtype: x.dtype, device: x.device);

    /// <summary>Brings results to the tokens they belong to.</summary>
    public void Return(Tensor from, Tensor to)
    {
        if (!_isWhole)
        {
            Find(to.device);
            to.index_copy_(0, _tokens!, from.flatten(0, 1).index_select(0, _places!));
        }
    }

    private Tensor View(Tensor x) => x.narrow(0, sequences[0].Start, sequences.Count * Length).unflatten(0, [sequences.Count, Length]);

    public void Dispose()
    {
        _tokens?.Dispose();
        _places?.Dispose();
    }

    private void Find(Device device)
    {
        if (_tokens is not null)
        {
            return;
        }

        using var scope = NewDisposeScope();
        var tokens = sequences.SelectMany(sequence => Enumerable.Range(sequence.Start, sequence.Length)).Select(token => (long)token);
        var places = sequences.Index().SelectMany(sequence => Enumerable.Range(sequence.Index * Length, sequence.Item.Length)).Select(place => (long)place);
        _tokens = tensor(tokens.ToArray(), device: device).DetachFromDisposeScope();
        _places = tensor(places.ToArray(), device: device).DetachFromDisposeScope();
    }
}
