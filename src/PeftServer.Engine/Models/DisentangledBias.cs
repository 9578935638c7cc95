using PeftServer.Engine.Native;

namespace PeftServer.Engine.Models;

/// <summary>DeBERTa's scores between contents and positions: what a token asks of a distance, and what a distance asks of a token.</summary>
/// <param name="shape">Sizes.</param>
/// <param name="keys">Positions as keys [2·span, H, D]; null: contents do not ask.</param>
/// <param name="queries">Positions as queries [2·span, H, D]; null: positions do not ask.</param>
internal sealed class DisentangledBias(DebertaV2Shape shape, Tensor? keys, Tensor? queries) : AttentionBias
{
    public override Tensor Scores(Tensor q, Tensor k)
    {
        using var scope = NewDisposeScope();
        var rows = Rows(q, k); // [T, S]
        Tensor? scores = null; // [H, T, S]
        if (keys is not null)
        {
            var all = q.transpose(0, 1).bmm(keys.permute(1, 2, 0)); // [H, T, 2·span]
            scores = all.gather(-1, rows.unsqueeze(0).expand(all.size(0), -1, -1));
        }

        if (queries is not null)
        {
            // The distance back from a key to a query is that from the query to the key with its sign turned twice: the same row.
            var all = k.transpose(0, 1).bmm(queries.permute(1, 2, 0)); // [H, S, 2·span]
            var asked = all.gather(-1, rows.t().unsqueeze(0).expand(all.size(0), -1, -1)).transpose(1, 2);
            scores = scores is null ? asked : scores.Plus(asked);
        }

        return scores!.Times(shape.Scale).MoveToOuterDisposeScope();
    }

    /// <summary>The row of the table for each query and key.</summary>
    private Tensor Rows(Tensor q, Tensor k)
    {
        using var scope = NewDisposeScope();
        using var span = ((long)shape.Span).ToScalar();
        using var first = 0L.ToScalar();
        using var last = ((2L * shape.Span) - 1).ToScalar();
        using var one = 1L.ToScalar();
        var distances = Distances(q, k).neg(); // a query's position less the key's
        return (shape.Buckets > 0 ? Bucket(distances) : distances).add(span, one).clamp(first, last).MoveToOuterDisposeScope();
    }

    /// <summary>Near distances stay, far ones go by their logarithm.</summary>
    private Tensor Bucket(Tensor distances)
    {
        using var scope = NewDisposeScope();
        var middle = shape.Buckets / 2;
        using var half = ((double)middle).ToScalar();
        using var range = ((double)MathF.Log((float)((shape.Farthest - 1.0) / middle))).ToScalar();
        using var steps = (middle - 1.0).ToScalar();
        var size = distances.abs().to(ScalarType.Float32).clamp_min(half);
        var far = size.div(half).log().div(range).mul(steps).ceil().add(half).mul(distances.sign().to(ScalarType.Float32)).to(ScalarType.Int64);
        return where(distances.abs().le(half), distances, far).MoveToOuterDisposeScope();
    }
}
