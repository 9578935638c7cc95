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
        var (queries, keys) = (q.size(0), k.size(0));
        var windowed = options.Window < keys;
        var mask = windowed || (queries > 1 && queries < keys) ? CausalMask(queries, keys, options.Window, q.device) : null;
        var y = Aten.Attention(Heads(q), Heads(k), Heads(v), mask, causal: mask is null && queries > 1, options.Scale); // [1, H, T, D]
        return y.squeeze(0).transpose(0, 1).MoveToOuterDisposeScope(); // [T, H, D]
    }

    private static Tensor Heads(Tensor x) => x.transpose(0, 1).unsqueeze(0); // [1, H, T, D]

    /// <summary>True where query i (of the last <paramref name="queries"/> positions) may see key j.</summary>
    private static Tensor CausalMask(long queries, long keys, int? window, Device device)
    {
        var seen = ones(queries, keys, dtype: ScalarType.Bool, device: device).tril(keys - queries);
        return window is { } width ? seen.triu(keys - queries - width + 1) : seen; // [T, S]
    }
}
