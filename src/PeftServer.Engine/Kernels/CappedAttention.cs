using PeftServer.Engine.Native;

namespace PeftServer.Engine.Kernels;

/// <summary>
/// Causal attention whose scores have a soft cap, which no attention of libtorch knows: products and <see cref="BlockKernels.CappedSoftmax"/>, so
/// many queries at a time, over the keys that these see, of all sequences of about one length together. The backward makes the scores again.
/// </summary>
internal static class CappedAttention
{
    /// <summary>Queries at a time: enough for full speed, few enough that little is computed of what they do not see.</summary>
    public const int Chunk = 512;

    public static AttentionState Forward(BlockKernels kernels, Tensor q, Tensor k, Tensor v, PackedBorders borders, AttentionScope scope)
    {
        using var temporaries = NewDisposeScope();
        var output = empty(q.shape, dtype: q.dtype, device: q.device); // [n, H, D]
        foreach (var rows in borders.Groups)
        {
            using var inner = NewDisposeScope();
            var (queries, keys, values, answers) = (rows.Of(q), Keys(rows.Of(k)), Keys(rows.Of(v)), rows.Target(output)); // keys: [B·G, T, D]
            foreach (var chunk in Chunks(rows.Length, scope))
            {
                using var part = NewDisposeScope();
                var scores = Scores(Queries(queries, k, chunk), keys.narrow(1, chunk.FirstKey, chunk.Keys)); // [B·G, H/G·c, S]
                kernels.CappedSoftmax(scores, chunk.Rows(scope));
                Write(scores.bmm(values.narrow(1, chunk.FirstKey, chunk.Keys)), answers, k, chunk);
            }

            rows.Return(answers, output);
        }

        return new AttentionState(output.MoveToOuterDisposeScope(), null, null, null);
    }

    public static (Tensor Dq, Tensor Dk, Tensor Dv) Backward(
        BlockKernels kernels, Tensor grad, Tensor q, Tensor k, Tensor v, PackedBorders borders, AttentionScope scope)
    {
        using var temporaries = NewDisposeScope();
        var (dq, dk, dv) = (empty(q.shape, dtype: q.dtype, device: q.device), empty(k.shape, dtype: k.dtype, device: k.device), empty(v.shape, dtype: v.dtype, device: v.device));
        foreach (var rows in borders.Groups)
        {
            using var inner = NewDisposeScope();
            var (queries, keys, values, gradients, dQueries) = (rows.Of(q), Keys(rows.Of(k)), Keys(rows.Of(v)), rows.Of(grad), rows.Target(dq)); // keys: [B·G, T, D]
            var (dKeys, dValues) = (zeros(keys.shape, dtype: ScalarType.Float32, device: k.device), zeros(keys.shape, dtype: ScalarType.Float32, device: k.device));
            foreach (var chunk in Chunks(rows.Length, scope))
            {
                using var part = NewDisposeScope();
                var (asked, dOutput) = (Queries(queries, k, chunk), Queries(gradients, k, chunk)); // [B·G, H/G·c, D]
                var seen = keys.narrow(1, chunk.FirstKey, chunk.Keys);
                var weights = Scores(asked, seen); // [B·G, H/G·c, S]
                var dScores = Scores(dOutput, values.narrow(1, chunk.FirstKey, chunk.Keys)); // of the softmax, so far
                kernels.CappedSoftmaxBackward(weights, dScores, chunk.Rows(scope));
                Write(dScores.bmm(seen), dQueries, k, chunk);
                dKeys.narrow(1, chunk.FirstKey, chunk.Keys).Add(dScores.transpose(1, 2).bmm(asked));
                dValues.narrow(1, chunk.FirstKey, chunk.Keys).Add(weights.transpose(1, 2).bmm(dOutput));
            }

            rows.Return(dQueries, dq);
            WriteKeys(dKeys, dk, rows);
            WriteKeys(dValues, dv, rows);
        }

        return (dq.MoveToOuterDisposeScope(), dk.MoveToOuterDisposeScope(), dv.MoveToOuterDisposeScope());
    }

    /// <summary>a [b, m, D] · c [b, S, D]ᵀ in rows that begin at whole groups of eight, as the kernels read them.</summary>
    private static Tensor Scores(Tensor a, Tensor c)
    {
        var keys = c.size(1);
        var scores = empty([a.size(0), a.size(1), (keys + 7) / 8 * 8], dtype: a.dtype, device: a.device).narrow(2, 0, keys);
        Aten.BatchProduct(a, c.transpose(1, 2), scores);
        return scores;
    }

    /// <summary>[B·G, T, D] of keys or values [B, T, G, D].</summary>
    private static Tensor Keys(Tensor x) => x.transpose(1, 2).reshape(-1, x.size(1), x.size(3));

    /// <summary>Gradients of keys or values [B·G, T, D] to where their tokens are in <paramref name="to"/> [n, G, D].</summary>
    private static void WriteKeys(Tensor from, Tensor to, SequenceRows rows)
    {
        var place = rows.Target(to);
        place.copy_(from.view(place.size(0), place.size(2), place.size(1), place.size(3)).transpose(1, 2));
        rows.Return(place, to);
    }

    /// <summary>[B·G, H/G·c, D] of queries [B, T, H, D]: those of the heads of a group stand together.</summary>
    private static Tensor Queries(Tensor x, Tensor keys, QueryChunk chunk) => Groups(x, keys, chunk).reshape(-1, x.size(2) / keys.size(1) * chunk.Count, x.size(3));

    private static void Write(Tensor from, Tensor to, Tensor keys, QueryChunk chunk)
    {
        var place = Groups(to, keys, chunk); // [B, G, H/G, c, D]
        place.copy_(from.view(place.shape));
    }

    private static Tensor Groups(Tensor x, Tensor keys, QueryChunk chunk) => x.narrow(1, chunk.First, chunk.Count)
        .unflatten(2, [keys.size(1), x.size(2) / keys.size(1)]).permute(0, 2, 3, 1, 4);

    private static IEnumerable<QueryChunk> Chunks(int length, AttentionScope scope)
    {
        for (var first = 0; first < length; first += Chunk)
        {
            var firstKey = scope.Window is { } window ? Math.Max(0, first + 1 - window) : 0;
            var count = Math.Min(Chunk, length - first);
            yield return new QueryChunk(first, count, firstKey, first + count - firstKey);
        }
    }

    /// <summary>Queries of each sequence and the keys that any of them sees.</summary>
    private readonly record struct QueryChunk(int First, int Count, int FirstKey, int Keys)
    {
        public CappedRows Rows(AttentionScope scope) => new(Count, First - FirstKey, scope.Window, scope.Scale, scope.SoftCap!.Value);
    }
}
