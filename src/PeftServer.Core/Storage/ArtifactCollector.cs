using Microsoft.EntityFrameworkCore;
using PeftServer.Core.Data;

namespace PeftServer.Core.Storage;

/// <summary>Removes the blobs that no row names any more.</summary>
public sealed class ArtifactCollector(IDbContextFactory<PeftDbContext> contexts, IArtifactStore store)
{
    /// <summary>A blob is stored before the row that names it: younger ones may still get theirs.</summary>
    public static readonly TimeSpan MinimumAge = TimeSpan.FromHours(1);

    /// <summary>Returns how many were removed. Adapters that no model points at lose their rows first.</summary>
    public async Task<int> CollectAsync(CancellationToken cancellationToken)
    {
        await using var db = await contexts.CreateDbContextAsync(cancellationToken);
        await db.Database.ExecuteSqlAsync($"""
            delete from adapters a
            where a.created_at < now() - {MinimumAge} and not exists (select 1 from models m where m.adapter_digest = a.digest)
            """, cancellationToken);
        var used = (await db.Files.Select(file => file.Sha256).ToListAsync(cancellationToken)).ToHashSet();
        used.UnionWith((await db.Adapters.Select(adapter => adapter.Files).ToListAsync(cancellationToken)).SelectMany(files => files).Select(file => file.Sha256));
        var removed = 0;
        await foreach (var sha256 in store.ListAsync(cancellationToken))
        {
            removed += !used.Contains(sha256) && await store.DeleteAsync(sha256, MinimumAge, cancellationToken) ? 1 : 0;
        }

        return removed;
    }
}
