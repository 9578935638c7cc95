using System.Collections.Concurrent;
using Microsoft.Extensions.Options;
using PeftServer.Core.Inference;
using PeftServer.Core.Models;
using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;

namespace PeftServer.Inference;

/// <summary>
/// The bases in memory, by name and by what stands on top of them; a base under several heads is there once. A base is loaded when it is
/// first asked for, and leaves when it is idle for long.
/// </summary>
internal sealed class ServedModels(IOptions<InferenceOptions> options, IOptions<InferenceHostOptions> hostOptions, TimeProvider clock) : IDisposable
{
    private readonly ConcurrentDictionary<Key, ServedModel> _models = [];
    private readonly Dictionary<string, SharedTensors> _shared = [];
    private readonly Lock _gate = new();

    /// <summary>Requests in all engines.</summary>
    public int Load => _models.Values.Sum(model => model.Load);

    /// <summary>The base as a writer, loading or loaded. One that failed to load is tried again.</summary>
    public ServedWriter Writer(BaseModel model) =>
        Get(new Key(model.Name, ModelHead.CausalLM, 0), shared => new ServedWriter(model, shared, options.Value, hostOptions.Value));

    /// <summary>
    /// The base under a head that reads, likewise; <paramref name="labels"/> are the classes of an adapter's own head. Adapters with as many
    /// classes share one.
    /// </summary>
    public ServedReader Reader(BaseModel model, ModelHead head, IReadOnlyList<string>? labels)
    {
        var classes = head is ModelHead.Features or ModelHead.QuestionAnswering ? 0 : labels?.Count ?? PretrainedConfig.Read(model.Folder).LabelCount;
        return Get(new Key(model.Name, head, classes), shared => new ServedReader(model, shared, head, labels, options.Value, hostOptions.Value));
    }

    /// <summary>The bases: ready where one of their heads is.</summary>
    public IReadOnlyDictionary<string, InferenceState> States() => _models.GroupBy(model => model.Key.Name).ToDictionary(
        group => group.Key, group => group.Select(model => model.Value.State).MinBy(state => Array.IndexOf(Better, state)));

    /// <summary>Lets go of bases that nobody used for <see cref="InferenceHostOptions.IdleMinutes"/>.</summary>
    public void DropIdle()
    {
        var since = clock.GetUtcNow() - TimeSpan.FromMinutes(hostOptions.Value.IdleMinutes);
        lock (_gate)
        {
            foreach (var (key, model) in _models.Where(model => model.Value.Load == 0 && model.Value.LastUsed < since).ToList())
            {
                _models.TryRemove(key, out _);
                model.Dispose();
                if (_models.Keys.All(other => other.Name != key.Name) && _shared.Remove(key.Name, out var shared))
                {
                    shared.Dispose();
                }
            }
        }
    }

    public void Dispose()
    {
        foreach (var model in _models.Values)
        {
            model.Dispose();
        }

        foreach (var shared in _shared.Values)
        {
            shared.Dispose();
        }
    }

    private static readonly InferenceState[] Better = [InferenceState.Ready, InferenceState.Loading, InferenceState.Draining, InferenceState.Failed];

    private T Get<T>(Key key, Func<SharedTensors, T> load)
        where T : ServedModel
    {
        lock (_gate)
        {
            if (_models.TryGetValue(key, out var served))
            {
                if (served.State is not InferenceState.Failed)
                {
                    served.LastUsed = clock.GetUtcNow();
                    return (T)served;
                }

                served.Dispose();
            }

            if (!_shared.TryGetValue(key.Name, out var shared))
            {
                _shared[key.Name] = shared = new SharedTensors();
            }

            var loading = load(shared);
            loading.LastUsed = clock.GetUtcNow();
            _models[key] = loading;
            return loading;
        }
    }

    private readonly record struct Key(string Name, ModelHead Head, int Labels);
}
