using System.Collections.Concurrent;
using Microsoft.Extensions.Options;
using PeftServer.Core.Inference;
using PeftServer.Core.Models;

namespace PeftServer.Inference;

/// <summary>The bases in memory, by name. A base is loaded when it is first asked for, and leaves when it is idle for long.</summary>
internal sealed class ServedModels(IOptions<InferenceOptions> options, IOptions<InferenceHostOptions> hostOptions, TimeProvider clock) : IDisposable
{
    private readonly ConcurrentDictionary<string, ServedModel> _models = [];
    private readonly Lock _gate = new();

    /// <summary>Requests in all engines.</summary>
    public int Load => _models.Values.Sum(model => model.Load);

    /// <summary>The base, loading or loaded. One that failed to load is tried again.</summary>
    public ServedModel Get(BaseModel model)
    {
        lock (_gate)
        {
            if (_models.TryGetValue(model.Name, out var served))
            {
                if (served.State is not InferenceState.Failed)
                {
                    served.LastUsed = clock.GetUtcNow();
                    return served;
                }

                served.Dispose();
            }

            return _models[model.Name] = new ServedModel(model, options.Value, hostOptions.Value) { LastUsed = clock.GetUtcNow() };
        }
    }

    public IReadOnlyDictionary<string, InferenceState> States() => _models.ToDictionary(model => model.Key, model => model.Value.State);

    /// <summary>Lets go of bases that nobody used for <see cref="InferenceHostOptions.IdleMinutes"/>.</summary>
    public void DropIdle()
    {
        var since = clock.GetUtcNow() - TimeSpan.FromMinutes(hostOptions.Value.IdleMinutes);
        lock (_gate)
        {
            foreach (var (name, model) in _models.Where(model => model.Value.Load == 0 && model.Value.LastUsed < since).ToList())
            {
                _models.TryRemove(name, out _);
                model.Dispose();
            }
        }
    }

    public void Dispose()
    {
        foreach (var model in _models.Values)
        {
            model.Dispose();
        }
    }
}
