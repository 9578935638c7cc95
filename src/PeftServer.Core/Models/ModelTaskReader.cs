using System.Collections.Concurrent;
using System.Text.Json;
using PeftServer.Core.Storage;
using PeftServer.Engine;
using PeftServer.Engine.Adapters;
using PeftServer.Engine.Models;

namespace PeftServer.Core.Models;

/// <summary>Finds out what models are for, from their config.json and from adapter_config.json; each file is read once.</summary>
public sealed class ModelTaskReader(IArtifactStore store)
{
    private readonly ConcurrentDictionary<(string Folder, DateTimeOffset WrittenAt), ModelHead?> _bases = [];
    private readonly ConcurrentDictionary<string, TaskType?> _adapters = [];

    /// <summary>The head of a base model; null where its config cannot be read or names one that this server does not know.</summary>
    public ModelHead? HeadOf(BaseModel model) => _bases.GetOrAdd((model.Folder, model.CreatedAt), _ =>
    {
        try
        {
            return ModelCatalog.ServedHead(PretrainedConfig.Read(model.Folder));
        }
        catch (Exception e) when (e is not OutOfMemoryException)
        {
            return null; // what a stranger's config can be is told where the model is loaded
        }
    });

    /// <summary>The head that a model needs: the one its adapter was trained for, else its base's.</summary>
    public async Task<ModelHead?> HeadOfAsync(BaseModel? model, AdapterManifest? adapter, CancellationToken cancellationToken) =>
        (adapter is null ? null : ModelCatalog.HeadFor(await TaskOfAsync(adapter, cancellationToken))) ?? (model is null ? null : HeadOf(model));

    private async Task<TaskType?> TaskOfAsync(AdapterManifest adapter, CancellationToken cancellationToken)
    {
        if (_adapters.TryGetValue(adapter.Digest, out var known))
        {
            return known;
        }

        TaskType? task = null;
        if (adapter.Files.FirstOrDefault(file => file.Path == Engine.Adapters.AdapterFile.ConfigName) is { } config)
        {
            try
            {
                await using var stream = await store.OpenAsync(config.Sha256, cancellationToken);
                using var document = await JsonDocument.ParseAsync(stream, cancellationToken: cancellationToken);
                task = document.RootElement.TryGetProperty("task_type", out var named) && named.ValueKind is JsonValueKind.String
                    ? named.Deserialize<TaskType>(PeftJson.Options)
                    : null;
            }
            catch (Exception e) when (e is IOException or JsonException)
            {
                return null; // a damaged store has errors of its own, where the adapter is used
            }
        }

        return _adapters[adapter.Digest] = task;
    }
}
