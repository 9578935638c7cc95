namespace PeftServer.Engine.Models;

/// <summary>What an adapter does around the attention of one layer.</summary>
public abstract class AttentionPart
{
    /// <summary>What is added to the heads that come out, [n, H, D], for the queries [n, H, D] that went in.</summary>
    public abstract Tensor Delta(Tensor q, AttentionOptions options);
}

/// <summary>Attention under the parts of the adapters that each run of tokens uses.</summary>
internal sealed class AdaptedAttention(AttentionBackend inner, IReadOnlyList<AdapterRun> runs) : AttentionBackend
{
    /// <summary><paramref name="inner"/> itself where none of the adapters has a part around attention.</summary>
    public static AttentionBackend Of(AttentionBackend inner, IReadOnlyList<AdapterRun> runs) =>
        runs.Any(run => run.Adapters.Any(adapter => adapter.AttentionParts.Count > 0)) ? new AdaptedAttention(inner, runs) : inner;

    public override Tensor Attend(int layer, Tensor q, Tensor k, Tensor v, AttentionOptions options)
    {
        using var scope = NewDisposeScope();
        var y = inner.Attend(layer, q, k, v, options); // [n, H, D]
        var pieces = new List<Tensor>();
        foreach (var run in runs)
        {
            var (asked, heads) = (q.narrow(0, run.Start, run.Count), y.narrow(0, run.Start, run.Count));
            foreach (var adapter in run.Adapters)
            {
                if (adapter.AttentionParts.TryGetValue(layer, out var part))
                {
                    heads = Native.TensorArithmetic.Plus(heads, part.Delta(asked, options).to(heads.dtype));
                }
            }

            pieces.Add(heads);
        }

        return (pieces is [var one] ? one : cat([.. pieces], 0)).MoveToOuterDisposeScope(); // [n, H, D]
    }
}
