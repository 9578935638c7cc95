using PeftServer.Engine.Native;

namespace PeftServer.Engine.Models;

/// <summary>How one layer attends.</summary>
/// <param name="Scale">Factor of the scores, usually 1/√D.</param>
/// <param name="Window">A token sees this many tokens back, itself included; null: all.</param>
public readonly record struct AttentionOptions(double Scale, int? Window = null);

/// <summary>
/// Attention over the layout of a batch. It owns masks and caches: a model hands over heads of tokens and never knows whether
/// they are training rows, a prompt, or one new token of each of many sequences.
/// </summary>
public abstract class AttentionBackend
{
    /// <summary>q [n, H, D], k and v [n, G, D] with H a multiple of G; the result is [n, H, D]. Causal.</summary>
    public abstract Tensor Attend(int layer, Tensor q, Tensor k, Tensor v, AttentionOptions options);

    /// <summary>One sequence: q [T, H, D] over k and v [S, G, D]; its last query stands at the last key.</summary>
    private protected static Tensor AttendOne(Tensor q, Tensor k, Tensor v, AttentionOptions options)
    {
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
