namespace PeftServer.Engine.Models;

/// <summary>
/// The keys and values of one sequence so far, for every layer, behind those that adapters put before it. Room grows by doubling.
/// </summary>
public sealed class KeyValueCache(int layers) : IDisposable
{
    private (Tensor Keys, Tensor Values)?[] _layers = new (Tensor, Tensor)?[layers];
    private int[] _prefixes = new int[layers];

    /// <summary>Tokens of the sequence that are in every layer's cache, rows of a prompt before them included.</summary>
    public int Length { get; private set; }

    /// <summary>Position of the next token.</summary>
    public int Position => _firstPosition + Length;

    /// <summary>Whether a batch has fed the sequence, and its adapters have put before it what they put.</summary>
    internal bool HasBegun { get; private set; }

    /// <summary>Rows of a prompt that go in with the sequence's first tokens.</summary>
    internal int PromptRows { get; private set; }

    private int _firstPosition;
    private KeyValueCache? _firstPass;

    /// <summary>The cache of a first pass over the same tokens, which advances with this one.</summary>
    internal KeyValueCache FirstPass => _firstPass ??= new KeyValueCache(layers);

    /// <summary>The same again, for a sequence that goes on otherwise.</summary>
    public KeyValueCache Clone() => new(layers)
    {
        _layers = [.. _layers.Select(layer => layer is var (keys, values) ? (keys.clone().DetachFromDisposeScope(), values.clone().DetachFromDisposeScope()) : ((Tensor, Tensor)?)null)],
        _prefixes = [.. _prefixes],
        Length = Length,
        HasBegun = HasBegun,
        PromptRows = PromptRows,
        _firstPosition = _firstPosition,
        _firstPass = _firstPass?.Clone(),
    };

    /// <summary>Takes what adapters put before a sequence: once, before its first token.</summary>
    internal void Begin(int promptRows, int firstPosition, IReadOnlyList<AttentionPrefix> prefixes)
    {
        (HasBegun, PromptRows, _firstPosition) = (true, promptRows, firstPosition);
        for (var layer = 0; layer < _layers.Length; layer++)
        {
            foreach (var prefix in prefixes)
            {
                if (prefix.At(layer) is var (keys, values))
                {
                    Store(layer, _prefixes[layer], keys, values);
                    _prefixes[layer] += (int)keys.size(0);
                }
            }
        }
    }

    /// <summary>
    /// Stores k, v [n, G, D] of the tokens after <see cref="Length"/>; gives all of them behind the layer's prefix, [P + Length + n, G, D],
    /// as views.
    /// </summary>
    public (Tensor Keys, Tensor Values) Append(int layer, Tensor k, Tensor v)
    {
        if (layer >= _layers.Length)
        {
            // An adapter's own model may be deeper.
            Array.Resize(ref _layers, layer + 1);
            Array.Resize(ref _prefixes, layer + 1);
        }

        return Store(layer, _prefixes[layer] + Length, k, v);
    }

    /// <summary>What a layer holds, behind its prefix: keys and values [Length, G, D], as views.</summary>
    public (Tensor Keys, Tensor Values) Held(int layer) => _layers[layer] is var (keys, values)
        ? (keys.narrow(0, _prefixes[layer], Length), values.narrow(0, _prefixes[layer], Length))
        : throw new InvalidOperationException($"Layer {layer} holds nothing yet.");

    /// <summary>Says that <paramref name="tokens"/> more of the sequence's own are in every layer: the end of a forward pass.</summary>
    public void Advance(int tokens)
    {
        Length += tokens + PromptRows;
        PromptRows = 0;
        _firstPass?.Advance(tokens);
    }

    public void Dispose()
    {
        _firstPass?.Dispose();
        for (var i = 0; i < _layers.Length; i++)
        {
            _layers[i]?.Keys.Dispose();
            _layers[i]?.Values.Dispose();
            _layers[i] = null;
        }
    }

    private (Tensor Keys, Tensor Values) Store(int layer, int held, Tensor k, Tensor v)
    {
        var needed = held + k.size(0);
        var (keys, values) = Room(layer, held, needed, k);
        AttentionPrefix.Check(keys, k);
        keys.narrow(0, held, k.size(0)).copy_(k);
        values.narrow(0, held, v.size(0)).copy_(v);
        return (keys.narrow(0, 0, needed), values.narrow(0, 0, needed));
    }

    private (Tensor Keys, Tensor Values) Room(int layer, int held, long needed, Tensor like)
    {
        if (_layers[layer] is { } kept && kept.Keys.size(0) >= needed)
        {
            return kept;
        }

        var capacity = Math.Max(64, (long)System.Numerics.BitOperations.RoundUpToPowerOf2((ulong)needed));
        var grown = (Keys: Grow(_layers[layer]?.Keys, held, capacity, like), Values: Grow(_layers[layer]?.Values, held, capacity, like));
        _layers[layer] = grown;
        return grown;
    }

    private static Tensor Grow(Tensor? old, int held, long capacity, Tensor like)
    {
        var room = empty([capacity, like.size(1), like.size(2)], dtype: like.dtype, device: like.device).DetachFromDisposeScope();
        if (old is not null)
        {
            using var past = old.narrow(0, 0, held);
            using var target = room.narrow(0, 0, held);
            target.copy_(past);
            old.Dispose();
        }

        return room;
    }
}

/// <summary>New tokens of sequences whose past is cached: each attends to its own past and itself. Without gradients.</summary>
internal sealed class CachedAttention(
    IReadOnlyList<int> starts, IReadOnlyList<KeyValueCache> caches, IReadOnlyList<IReadOnlyList<AttentionPrefix>> anew) : AttentionBackend
{
    public override Tensor Attend(int layer, Tensor q, Tensor k, Tensor v, AttentionOptions options)
    {
        using var scope = NewDisposeScope();
        var outputs = new Tensor[caches.Count];
        for (var i = 0; i < caches.Count; i++)
        {
            var (start, length) = (starts[i], starts[i + 1] - starts[i]);
            var (keys, values) = caches[i].Append(layer, k.narrow(0, start, length), v.narrow(0, start, length));
            (keys, values) = AttentionPrefix.Before(anew[i], layer, i, keys, values);
            outputs[i] = AttendOne(q.narrow(0, start, length), keys, values, options);
        }

        return (outputs is [var one] ? one : cat(outputs, 0)).MoveToOuterDisposeScope(); // [n, H, D]
    }
}
