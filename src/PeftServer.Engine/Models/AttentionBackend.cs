using PeftServer.Engine.Native;

namespace PeftServer.Engine.Models;

/// <summary>How one layer attends.</summary>
/// <param name="Scale">Factor of the scores, usually 1/√D.</param>
/// <param name="Window">A token sees this many tokens back, itself included; null: all. Bidirectional: as many ahead as well.</param>
/// <param name="Bidirectional">Tokens see those after them too.</param>
/// <param name="SoftCap">Scores s become c·tanh(s/c); null: they stay.</param>
/// <param name="Bias">Added to the scaled scores.</param>
public readonly record struct AttentionOptions(double Scale, int? Window = null, bool Bidirectional = false, double? SoftCap = null, AttentionBias? Bias = null)
{
    internal bool IsPlain => !Bidirectional && SoftCap is null && Bias is null;
}

/// <summary>What a layer adds to its scores: ALiBi, T5's relative positions, DeBERTa's disentangled terms.</summary>
public abstract class AttentionBias
{
    private static readonly KeptScalar Less = new(-1L); // whole numbers refuse a factor that is not one

    /// <summary>q [T, H, D] of the last T of S positions, k [S, H, D]; the result broadcasts to [H, T, S], in the type of q.</summary>
    public abstract Tensor Scores(Tensor q, Tensor k);

    /// <summary>Position of each key less that of each query, [T, S], int64; the last query stands at the last key.</summary>
    protected static Tensor Distances(Tensor q, Tensor k)
    {
        using var scope = NewDisposeScope();
        var (queries, keys) = (q.size(0), k.size(0));
        var at = arange(keys, dtype: ScalarType.Int64, device: q.device);
        return at.unsqueeze(0).add(at.narrow(0, keys - queries, queries).unsqueeze(1), Less).MoveToOuterDisposeScope();
    }
}

/// <summary>
/// Attention over the layout of a batch. It owns masks and caches: a model hands over heads of tokens and never knows whether
/// they are training rows, a prompt, or one new token of each of many sequences.
/// </summary>
public abstract class AttentionBackend
{
    /// <summary>q [n, H, D], k and v [n, G, D] with H a multiple of G; the result is [n, H, D].</summary>
    public abstract Tensor Attend(int layer, Tensor q, Tensor k, Tensor v, AttentionOptions options);

    /// <summary>
    /// Each sequence over the tokens of another batch, an encoder's: sequence i sees k and v [m, H, D] from
    /// <paramref name="keyStarts"/>[i] to the next, behind what <paramref name="before"/> puts before them.
    /// </summary>
    public static Tensor AttendAcross(
        IReadOnlyList<int> starts, Tensor q, Tensor k, Tensor v, IReadOnlyList<int> keyStarts, AttentionOptions options,
        Func<int, Tensor, Tensor, (Tensor Keys, Tensor Values)> before)
    {
        using var scope = NewDisposeScope();
        var outputs = new Tensor[starts.Count - 1];
        for (var i = 0; i < outputs.Length; i++)
        {
            var (key, keys) = (keyStarts[i], keyStarts[i + 1] - keyStarts[i]);
            var (seen, values) = before(i, k.narrow(0, key, keys), v.narrow(0, key, keys));
            outputs[i] = AttendGeneral(q.narrow(0, starts[i], starts[i + 1] - starts[i]), seen, values, options with { Bidirectional = true });
        }

        return cat(outputs, 0).MoveToOuterDisposeScope(); // [n, H, D]
    }

    /// <summary>One sequence: q [T, H, D] over k and v [S, G, D]; its last query stands at the last key.</summary>
    private protected static Tensor AttendOne(Tensor q, Tensor k, Tensor v, AttentionOptions options)
    {
        if (!options.IsPlain)
        {
            return AttendGeneral(q, k, v, options);
        }

        using var scope = NewDisposeScope();
        var (queries, keys, repeats) = (q.size(0), k.size(0), q.size(1) / k.size(1));
        if (queries == 1)
        {
            // The heads of a group are as good as several queries that see all keys: nothing is repeated, nothing masked.
            var from = options.Window is { } width ? Math.Max(0, keys - width) : 0;
            var (seen, values) = (k.narrow(0, from, keys - from), v.narrow(0, from, keys - from));
            var grouped = q.reshape(1, k.size(1), repeats, q.size(2)); // [1, G, H/G, D]
            return Aten.Attention(grouped, Heads(seen, 1), Heads(values, 1), null, causal: false, options.Scale).reshape(1, q.size(1), q.size(2)).MoveToOuterDisposeScope();
        }

        // On a CPU only equal heads take the fast path; copying a few keys costs less than the other.
        var copies = q.device.type is DeviceType.CPU ? repeats : 1;
        var mask = options.Window < keys || queries < keys ? CausalMask(queries, keys, options.Window, q.device) : null;
        var y = Aten.Attention(Heads(q, 1), Heads(k, copies), Heads(v, copies), mask, causal: mask is null, options.Scale); // [1, H, T, D]
        return y.squeeze(0).transpose(0, 1).MoveToOuterDisposeScope(); // [T, H, D]
    }

    /// <summary>As <see cref="AttendOne"/>, for what is more than causal: the scores' additions stand in the mask, a soft cap needs the scores themselves.</summary>
    private static Tensor AttendGeneral(Tensor q, Tensor k, Tensor v, AttentionOptions options)
    {
        using var scope = NewDisposeScope();
        var (queries, keys, repeats) = (q.size(0), k.size(0), q.size(1) / k.size(1));
        if (repeats > 1)
        {
            (k, v) = (k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1));
        }

        var seen = (options.Bidirectional, options.Window) switch
        {
            (true, null) => null,
            (true, { } width) => ones(queries, keys, dtype: ScalarType.Bool, device: q.device).tril(keys - queries + width - 1).triu(keys - queries - width + 1),
            _ => CausalMask(queries, keys, options.Window, q.device),
        };
        var bias = options.Bias?.Scores(q, k);
        var added = seen is null ? bias : (bias ?? zeros(queries, keys, dtype: q.dtype, device: q.device)).masked_fill(seen.logical_not(), TensorArithmetic.NegativeInfinity);
        if (options.SoftCap is not { } cap)
        {
            var mask = added?.expand(q.size(1), queries, keys).unsqueeze(0); // [1, H, T, S]
            var y = Aten.Attention(Heads(q, 1), Heads(k, 1), Heads(v, 1), mask, causal: false, options.Scale);
            return y.squeeze(0).transpose(0, 1).MoveToOuterDisposeScope(); // [T, H, D]
        }

        using var shrink = (options.Scale / cap).ToScalar();
        using var grow = cap.ToScalar();
        var scores = q.transpose(0, 1).bmm(k.permute(1, 2, 0)).mul(shrink).tanh().mul(grow); // [H, T, S]
        var weights = (added is null ? scores : scores.Plus(added)).softmax(-1, ScalarType.Float32).to(q.dtype);
        return weights.bmm(v.transpose(0, 1)).transpose(0, 1).MoveToOuterDisposeScope(); // [T, H, D]
    }

    /// <summary>[1, H, T, D], each head as often as wanted.</summary>
    private static Tensor Heads(Tensor x, long repeats)
    {
        var heads = x.transpose(0, 1); // [G, T, D]
        return (repeats == 1 ? heads : heads.repeat_interleave(repeats, 0)).unsqueeze(0);
    }

    /// <summary>True where query i (of the last <paramref name="queries"/> positions) may see key j.</summary>
    private static Tensor CausalMask(long queries, long keys, int? window, Device device)
    {
        var seen = ones(queries, keys, dtype: ScalarType.Bool, device: device).tril(keys - queries);
        return window is { } width ? seen.triu(keys - queries - width + 1) : seen; // [T, S]
    }
}
