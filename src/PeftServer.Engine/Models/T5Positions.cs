using PeftServer.Engine.Native;

namespace PeftServer.Engine.Models;

/// <summary>
/// Distances between tokens as T5 tells them apart: near ones each by itself, far ones by their logarithm, those beyond
/// <paramref name="farthest"/> as one.
/// </summary>
internal sealed class T5Positions(int buckets, int farthest, bool bidirectional)
{
    private static readonly KeptScalar Nothing = new(0L);
    private static readonly KeptScalar One = new(1L);
    private readonly KeptScalar _side = new((long)Side(buckets, bidirectional));
    private readonly KeptScalar _last = new(Side(buckets, bidirectional) - 1L);
    private readonly KeptScalar _exact = new((long)Exact(buckets, bidirectional)); // half of a side are single steps
    private readonly KeptScalar _exactly = new((double)Exact(buckets, bidirectional));
    private readonly KeptScalar _range = new(Math.Log((double)farthest / Exact(buckets, bidirectional)));
    private readonly KeptScalar _coarse = new((double)(Side(buckets, bidirectional) - Exact(buckets, bidirectional)));

    /// <summary>The bias of one forward pass, from the table that the stack's first layer holds.</summary>
    public T5PositionBias Of(Embedding table, ForwardBatch batch)
    {
        if (table.IsAdapted && batch.Runs.Count > 1)
        {
            throw new NotSupportedException($"Sequences with different adapters cannot share a batch where one of them changes {table.Path}.");
        }

        var shifts = batch.Runs.Select(run => run.Adapters.Sum(adapter => adapter.DistanceShift(bidirectional))).Distinct().ToList();
        if (shifts.Count > 1)
        {
            throw new NotSupportedException("Sequences with prefixes of different lengths cannot share a batch where positions are distances.");
        }

        using var scope = NewDisposeScope();
        using var rows = ForwardBatch.Heads([new AdapterRun(batch.Runs[0].Adapters, 0, buckets)], batch.Ids.device);
        var scores = table.Forward(tensor(Enumerable.Range(0, buckets).Select(row => (long)row).ToArray(), device: batch.Ids.device), rows); // [buckets, H]
        return new T5PositionBias(this, GradientCheckpoints.Cut(scores).MoveToOuterDisposeScope(), bidirectional, shifts is [var shift] ? shift : 0);
    }

    /// <summary>distances: position of the key less that of the query, int64; the result has the same shape.</summary>
    public Tensor Bucket(Tensor distances)
    {
        using var scope = NewDisposeScope();
        var side = bidirectional ? buckets / 2 : buckets;
        var steps = bidirectional ? distances.abs() : distances.clamp_max(Nothing).neg();

        // In float32 and in this order, so that a step at a border falls where it fell in training.
        var logarithm = steps.to(ScalarType.Float32).div(_exactly).log().div(_range).mul(_coarse);
        var far = logarithm.to(ScalarType.Int64).add(_exact, One).clamp_max(_last);
        var bucket = where(steps.lt(_exact), steps, far);
        return (bidirectional ? bucket.add(distances.gt(Nothing).to(ScalarType.Int64).mul(_side), One) : bucket).MoveToOuterDisposeScope();
    }

    /// <summary>Buckets of one direction.</summary>
    private static int Side(int buckets, bool bidirectional) => bidirectional ? buckets / 2 : buckets;

    private static int Exact(int buckets, bool bidirectional) => Side(buckets, bidirectional) / 2;
}

/// <summary>T5's relative positions in one forward pass: computed once for each pair of lengths, used by every layer.</summary>
/// <param name="positions">How distances fall into buckets.</param>
/// <param name="scores">[buckets, H].</param>
/// <param name="bidirectional">Whether tokens see those after them.</param>
/// <param name="shift">How much further on keys seem to be.</param>
internal sealed class T5PositionBias(T5Positions positions, Tensor scores, bool bidirectional, long shift) : AttentionBias, IDisposable
{
    private static readonly KeptScalar One = new(1L);
    private readonly KeptScalar _shift = new(shift);
    private readonly Dictionary<(long Queries, long Keys), Tensor> _made = [];

    public bool IsBidirectional { get; } = bidirectional;

    public override Tensor Scores(Tensor q, Tensor k)
    {
        var lengths = (q.size(0), k.size(0));
        if (!_made.TryGetValue(lengths, out var bias))
        {
            using var scope = NewDisposeScope();
            var rows = positions.Bucket(Distances(q, k).add(_shift, One)).flatten(); // [T·S]
            bias = scores.index_select(0, rows).view(q.size(0), k.size(0), -1).permute(2, 0, 1).contiguous();
            _made[lengths] = bias = GradientCheckpoints.Cut(bias).DetachFromDisposeScope();
        }

        return bias; // [H, T, S]
    }

    public void Dispose()
    {
        if (GradientCheckpoints.Keeps(this))
        {
            return;
        }

        foreach (var bias in _made.Values)
        {
            bias.Dispose();
        }
    }
}
