namespace PeftServer.Engine.Models;

/// <summary>The keys and values of one sequence so far, for every layer. Room grows by doubling.</summary>
public sealed class KeyValueCache(int layers) : IDisposable
{
    private readonly (Tensor Keys, Tensor Values)?[] _layers = new (Tensor, Tensor)?[layers];

    /// <summary>Tokens that are in every layer's cache.</summary>
    public int Length { get; private set; }

    /// <summary>Stores k, v [n, G, D] of the tokens after <see cref="Length"/>; gives all of them, [Length + n, G, D], as views.</summary>
    public (Tensor Keys, Tensor Values) Append(int layer, Tensor k, Tensor v)
    {
        var needed = Length + k.size(0);
        var (keys, values) = Room(layer, needed, k);
        keys.narrow(0, Length, k.size(0)).copy_(k);
        values.narrow(0, Length, v.size(0)).copy_(v);
        return (keys.narrow(0, 0, needed), values.narrow(0, 0, needed));
    }

    /// <summary>Says that <paramref name="tokens"/> more are in every layer: the end of a forward pass.</summary>
    public void Advance(int tokens) => Length += tokens;

    public void Dispose()
    {
        for (var i = 0; i < _layers.Length; i++)
        {
            _layers[i]?.Keys.Dispose();
            _layers[i]?.Values.Dispose();
            _layers[i] = null;
        }
    }

    private (Tensor Keys, Tensor Values) Room(int layer, long needed, Tensor like)
    {
        if (_layers[layer] is { } held && held.Keys.size(0) >= needed)
        {
            return held;
        }

        var capacity = Math.Max(64, (long)System.Numerics.BitOperations.RoundUpToPowerOf2((ulong)needed));
        var grown = (Keys: Grow(_layers[layer]?.Keys, capacity, like), Values: Grow(_layers[layer]?.Values, capacity, like));
        _layers[layer] = grown;
        return grown;
    }

    private Tensor Grow(Tensor? old, long capacity, Tensor like)
    {
        var room = empty([capacity, like.size(1), like.size(2)], dtype: like.dtype, device: like.device).DetachFromDisposeScope();
        if (old is not null)
        {
            using var past = old.narrow(0, 0, Length);
            using var target = room.narrow(0, 0, Length);
            target.copy_(past);
            old.Dispose();
        }

        return room;
    }
}

/// <summary>New tokens of sequences whose past is cached: each attends to its own past and itself. Without gradients.</summary>
internal sealed class CachedAttention(IReadOnlyList<int> starts, IReadOnlyList<KeyValueCache> caches) : AttentionBackend
{
    public override Tensor Attend(int layer, Tensor q, Tensor k, Tensor v, AttentionOptions options)
    {
        using var scope = NewDisposeScope();
        var outputs = new Tensor[caches.Count];
        for (var i = 0; i < caches.Count; i++)
        {
            var (start, length) = (starts[i], starts[i + 1] - starts[i]);
            var (keys, values) = caches[i].Append(layer, k.narrow(0, start, length), v.narrow(0, start, length));
            outputs[i] = AttendOne(q.narrow(0, start, length), keys, values, options);
        }

        return (outputs is [var one] ? one : cat(outputs, 0)).MoveToOuterDisposeScope(); // [n, H, D]
    }
}
