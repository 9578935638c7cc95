using PeftServer.Engine.Adapters;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Generation;

/// <summary>Adapters in memory, by digest. The least recently used one that no sequence needs makes room for a new one.</summary>
internal sealed class LoadedAdapters(PretrainedModel model, int capacity) : IDisposable
{
    private readonly Dictionary<string, Adapter> _adapters = [];
    private readonly LinkedList<string> _byUse = new();

    /// <summary>The adapter, loaded where it is not. Throws what <see cref="AdapterFile.Load"/> throws.</summary>
    public Adapter Get(AdapterReference reference, Func<Adapter, bool> isInUse)
    {
        if (_adapters.TryGetValue(reference.Digest, out var known))
        {
            _byUse.Remove(reference.Digest);
            _byUse.AddLast(reference.Digest);
            return known;
        }

        var spare = _byUse.FirstOrDefault(digest => !isInUse(_adapters[digest]));
        if (_adapters.Count >= capacity && spare is not null)
        {
            _byUse.Remove(spare);
            _adapters.Remove(spare, out var leaving);
            leaving!.Dispose();
        }

        using var scope = NewDisposeScope();
        var adapter = AdapterFile.Load(reference.Folder, model);
        foreach (var (_, weight) in adapter.State.Concat(adapter.TrainingState).Where(state => state.Weight.IsLoaded && state.Weight.Value.is_floating_point()))
        {
            weight.Set(weight.Value.to(model.Dtype).DetachFromDisposeScope()); // no conversion at every step
        }

        _adapters[reference.Digest] = adapter;
        _byUse.AddLast(reference.Digest);
        return adapter;
    }

    public void Dispose()
    {
        foreach (var adapter in _adapters.Values)
        {
            adapter.Dispose();
        }
    }
}
