namespace PeftServer.Engine.Weights;

/// <summary>
/// Tensors of one checkpoint that several models hold at once, by the checkpoint's own names: a base that writes and one that classifies are in
/// memory once. May be used from several threads; nobody may change a tensor in place. What is disposed of here stays with the models.
/// </summary>
public sealed class SharedTensors : IDisposable
{
    private readonly Dictionary<(string Name, ScalarType Dtype, string Device), Tensor> _held = [];
    private readonly Lock _gate = new();

    /// <summary>Whether <see cref="Of"/> has the tensor of that name already.</summary>
    internal bool Holds(string name, ScalarType dtype, Device device)
    {
        lock (_gate)
        {
            return _held.ContainsKey((name, dtype, device.ToString()));
        }
    }

    /// <summary>The tensor of that name, loaded where it is not: a handle of the caller's own.</summary>
    internal Tensor Of(string name, ScalarType dtype, Device device, Func<Tensor> load)
    {
        var key = (name, dtype, device.ToString());
        lock (_gate)
        {
            if (!_held.TryGetValue(key, out var held))
            {
                _held[key] = held = load().DetachFromDisposeScope();
            }

            return held.alias();
        }
    }

    public void Dispose()
    {
        lock (_gate)
        {
            foreach (var tensor in _held.Values)
            {
                tensor.Dispose();
            }

            _held.Clear();
        }
    }
}
