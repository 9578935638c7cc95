using Microsoft.EntityFrameworkCore;
using PeftServer.Core.Data;
using PeftServer.Core.Storage;

namespace PeftServer.Core.Models;

/// <summary>What a model's name stands for.</summary>
/// <param name="Name">The name, aliases resolved.</param>
/// <param name="Base">The base model; null when its folder is gone from <c>Models:Root</c>.</param>
/// <param name="BaseName">Its name.</param>
/// <param name="Adapter">The adapter on it; null: the base alone.</param>
public sealed record ResolvedModel(string Name, BaseModel? Base, string BaseName, AdapterManifest? Adapter);

/// <summary>Names to models: bases of <see cref="BaseModels"/>, fine-tuned ones and aliases from the database.</summary>
public sealed class ModelDirectory(IDbContextFactory<PeftDbContext> contexts, BaseModels bases)
{
    /// <summary>Null when no base, fine-tuned model or alias of the project has that name.</summary>
    public async Task<ResolvedModel?> ResolveAsync(string projectId, string name, CancellationToken cancellationToken)
    {
        if (bases.Find(name) is { } found)
        {
            return new ResolvedModel(name, found, name, Adapter: null);
        }

        await using var db = await contexts.CreateDbContextAsync(cancellationToken);
        var aliased = await db.Aliases.Where(alias => alias.ProjectId == projectId && alias.Alias == name)
            .Select(alias => alias.ModelName).SingleOrDefaultAsync(cancellationToken);
        var model = await db.Models.AsNoTracking()
            .Join(db.Adapters, model => model.AdapterDigest, adapter => adapter.Digest, (model, adapter) => new { model, adapter })
            .SingleOrDefaultAsync(pair => pair.model.Name == (aliased ?? name) && pair.model.ProjectId == projectId, cancellationToken);
        return model is null
            ? null
            : new ResolvedModel(model.model.Name, bases.Find(model.model.BaseModel), model.model.BaseModel, new AdapterManifest(model.adapter.Files));
    }

    /// <summary>The project's fine-tuned models, newest first.</summary>
    public async Task<IReadOnlyList<FineTunedModel>> ListFineTunedAsync(string projectId, CancellationToken cancellationToken)
    {
        await using var db = await contexts.CreateDbContextAsync(cancellationToken);
        return await db.Models.AsNoTracking().Where(model => model.ProjectId == projectId)
            .OrderByDescending(model => model.CreatedAt).ThenBy(model => model.Name).ToListAsync(cancellationToken);
    }

    /// <summary>Adapters by their digests.</summary>
    public async Task<IReadOnlyDictionary<string, AdapterManifest>> AdaptersAsync(IReadOnlyCollection<string> digests, CancellationToken cancellationToken)
    {
        await using var db = await contexts.CreateDbContextAsync(cancellationToken);
        var adapters = await db.Adapters.AsNoTracking().Where(adapter => digests.Contains(adapter.Digest)).ToListAsync(cancellationToken);
        return adapters.ToDictionary(adapter => adapter.Digest, adapter => new AdapterManifest(adapter.Files));
    }

    /// <summary>One fine-tuned model, not by alias; null when there is none.</summary>
    public async Task<FineTunedModel?> FindFineTunedAsync(string projectId, string name, CancellationToken cancellationToken)
    {
        await using var db = await contexts.CreateDbContextAsync(cancellationToken);
        return await db.Models.AsNoTracking().SingleOrDefaultAsync(model => model.Name == name && model.ProjectId == projectId, cancellationToken);
    }

    /// <summary>Forgets the name; returns false when there is none. The adapter stays while another name points at it.</summary>
    public async Task<bool> DeleteFineTunedAsync(string projectId, string name, CancellationToken cancellationToken)
    {
        await using var db = await contexts.CreateDbContextAsync(cancellationToken);
        return await db.Models.Where(model => model.Name == name && model.ProjectId == projectId).ExecuteDeleteAsync(cancellationToken) == 1;
    }
}
