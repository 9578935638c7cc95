namespace PeftServer.Engine.Models;

/// <summary>
/// Texts that an encoder has read, for a decoder to look at: their last hidden states, and without gradients also the keys and
/// values that each layer of the decoder makes of them, so that a text is projected once and not once a token.
/// </summary>
public sealed class EncodedSource : IDisposable
{
    private readonly Dictionary<int, (Tensor Keys, Tensor Values)> _kept = [];

    /// <summary>Takes over both.</summary>
    /// <param name="batch">What the encoder read: borders of the texts, and the adapters they are under.</param>
    /// <param name="hidden">[m, hidden].</param>
    /// <param name="prefixes">Keys and values that adapters put before those of the texts.</param>
    public EncodedSource(ForwardBatch batch, Tensor hidden, IReadOnlyList<AttentionPrefix>? prefixes = null) =>
        (Batch, Hidden, Prefixes) = (batch, hidden.DetachFromDisposeScope(), prefixes ?? []);

    public ForwardBatch Batch { get; }

    public Tensor Hidden { get; }

    /// <summary>Keys and values that adapters put before those of the texts.</summary>
    internal IReadOnlyList<AttentionPrefix> Prefixes { get; }

    /// <summary>
    /// Each sequence of <paramref name="batch"/> over its own text: q [n, H, D] of the decoder's tokens, keys and values projected
    /// from the encoder's states; the result is [n, H, D].
    /// </summary>
    internal static Tensor Attend(int layer, Tensor q, Projection keys, Projection values, ForwardBatch batch, AttentionOptions options)
    {
        using var scope = NewDisposeScope();
        var outputs = new List<Tensor>();
        var sequence = 0;
        foreach (var source in batch.Sources)
        {
            var starts = batch.Starts.Skip(sequence).Take(source.Batch.SequenceCount + 1).ToList();
            var (k, v) = source.KeysAndValues(layer, keys, values, q.size(1), q.size(2));
            var own = q.narrow(0, starts[0], starts[^1] - starts[0]);
            outputs.Add(AttentionBackend.AttendAcross([.. starts.Select(start => start - starts[0])], own, k, v, source.Batch.Starts, options,
                (text, key, value) => AttentionPrefix.Before(source.Prefixes, layer, text, key, value)));
            sequence += source.Batch.SequenceCount;
        }

        return sequence == batch.SequenceCount
            ? (outputs is [var one] ? one : cat(outputs, 0)).MoveToOuterDisposeScope()
            : throw new InvalidOperationException($"{batch.SequenceCount} sequences of a decoder have {sequence} texts to look at.");
    }

    public void Dispose()
    {
        if (GradientCheckpoints.Keeps(this))
        {
            return;
        }

        Batch.Dispose();
        Hidden.Dispose();
        foreach (var prefix in Prefixes)
        {
            prefix.Dispose();
        }

        foreach (var (keys, values) in _kept.Values)
        {
            keys.Dispose();
            values.Dispose();
        }

        _kept.Clear();
    }

    private (Tensor Keys, Tensor Values) KeysAndValues(int layer, Projection keys, Projection values, long heads, long width)
    {
        if (_kept.TryGetValue(layer, out var kept))
        {
            return kept;
        }

        var k = keys.Forward(Hidden, Batch).view(-1, heads, width); // [m, H, D]
        var v = values.Forward(Hidden, Batch).view(-1, heads, width); // [m, H, D]
        if (!is_grad_enabled())
        {
            _kept[layer] = (k.DetachFromDisposeScope(), v.DetachFromDisposeScope());
        }

        return (k, v);
    }
}
