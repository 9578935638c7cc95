namespace PeftServer.Engine.Models;

/// <summary>
/// Keys and values that an adapter puts before a sequence's own, as if they had long been in its cache. It is made for one batch, which
/// disposes of it; where gradients are on, they flow into it.
/// </summary>
public class AttentionPrefix : IDisposable
{
    private readonly IReadOnlyDictionary<int, (Tensor Keys, Tensor Values)> _layers;

    /// <summary>Takes over the tensors.</summary>
    /// <param name="layers">Keys and values [P, G, D] by layer; a layer that is absent gets none, and P may differ between layers.</param>
    /// <param name="positions">Positions that they take up: the sequence's own tokens count from here on.</param>
    public AttentionPrefix(IReadOnlyDictionary<int, (Tensor Keys, Tensor Values)> layers, int positions)
    {
        var all = GradientCheckpoints.Cut([.. layers.Values.SelectMany(layer => new[] { layer.Keys, layer.Values })]);
        _layers = layers.Keys.Select((layer, i) => (layer, Keys: all[2 * i], Values: all[(2 * i) + 1])).ToDictionary(entry => entry.layer, entry => (entry.Keys, entry.Values));
        Positions = positions;
        foreach (var (keys, values) in _layers.Values)
        {
            keys.DetachFromDisposeScope();
            values.DetachFromDisposeScope();
        }
    }

    /// <summary>Positions that they take up: the sequence's own tokens count from here on.</summary>
    public int Positions { get; }

    /// <summary>Keys and values of a layer, [P, G, D] each.</summary>
    public (Tensor Keys, Tensor Values)? At(int layer) => _layers.TryGetValue(layer, out var found) ? found : null;

    /// <summary>The same for one sequence of the batch, where they depend on it.</summary>
    internal virtual (Tensor Keys, Tensor Values)? At(int layer, int sequence) => At(layer);

    /// <summary>Whether a cache may hold them: they are the same at every step.</summary>
    internal virtual bool IsKept => true;

    /// <summary>k and v [S, G, D] of a layer behind those of <paramref name="prefixes"/>, the first of them first.</summary>
    internal static (Tensor Keys, Tensor Values) Before(IReadOnlyList<AttentionPrefix> prefixes, int layer, int sequence, Tensor k, Tensor v)
    {
        var before = prefixes.Select(prefix => prefix.At(layer, sequence)).OfType<(Tensor Keys, Tensor Values)>().ToList();
        if (before.Count == 0)
        {
            return (k, v);
        }

        before.ForEach(prefix => Check(prefix.Keys, k));
        return (cat([.. before.Select(prefix => prefix.Keys), k], 0), cat([.. before.Select(prefix => prefix.Values), v], 0));
    }

    /// <summary>Throws where the heads of a prefix are not those of the model.</summary>
    internal static void Check(Tensor prefix, Tensor k)
    {
        if (prefix.size(1) != k.size(1) || prefix.size(2) != k.size(2))
        {
            throw new Adapters.AdapterException(
                "token_dim", $"The keys put before a sequence have {prefix.size(1)} heads of {prefix.size(2)}; this model's have {k.size(1)} of {k.size(2)}.");
        }
    }

    public virtual void Dispose()
    {
        foreach (var (keys, values) in _layers.Values)
        {
            keys.Dispose();
            values.Dispose();
        }

        GC.SuppressFinalize(this);
    }
}
