using Microsoft.EntityFrameworkCore;
using PeftServer.Core.Data;

namespace PeftServer.Core.Inference;

/// <summary>The inference processes that are alive: they say so here, the api asks here.</summary>
public sealed class InferenceHosts(IDbContextFactory<PeftDbContext> contexts)
{
    /// <summary>How often a host says that it is there.</summary>
    public static readonly TimeSpan Heartbeat = TimeSpan.FromSeconds(2);

    /// <summary>A host silent for so long is taken for dead.</summary>
    public static readonly TimeSpan Silence = TimeSpan.FromSeconds(10);

    /// <summary>A host tells where it is, how busy, and which bases it holds; the whole list every time.</summary>
    public async Task ReportAsync(
        string hostId, string url, InferenceState state, int load, IReadOnlyDictionary<string, InferenceState> bases, CancellationToken cancellationToken)
    {
        await using var db = await contexts.CreateDbContextAsync(cancellationToken);
        await using var transaction = await db.Database.BeginTransactionAsync(cancellationToken);
        await db.Database.ExecuteSqlAsync($"""
            insert into inference_hosts (id, url, state, load, last_seen_at)
            values ({hostId}, {url}, {JsonConversion.NameOf(state)}, {load}, clock_timestamp())
            on conflict (id) do update set url = excluded.url, state = excluded.state, load = excluded.load, last_seen_at = excluded.last_seen_at
            """, cancellationToken);
        await db.InferenceBases.Where(held => held.HostId == hostId).ExecuteDeleteAsync(cancellationToken);
        db.InferenceBases.AddRange(bases.Select(held => new InferenceBase { HostId = hostId, BaseModel = held.Key, State = held.Value }));
        await db.SaveChangesAsync(cancellationToken);
        await transaction.CommitAsync(cancellationToken);
    }

    /// <summary>A host leaves.</summary>
    public async Task RemoveAsync(string hostId, CancellationToken cancellationToken)
    {
        await using var db = await contexts.CreateDbContextAsync(cancellationToken);
        await db.InferenceHosts.Where(host => host.Id == hostId).ExecuteDeleteAsync(cancellationToken);
    }

    /// <summary>The living hosts that take requests, best for <paramref name="baseModel"/> first: those that hold it, then the least busy.</summary>
    public async Task<IReadOnlyList<InferenceHost>> FindAsync(string baseModel, CancellationToken cancellationToken)
    {
        await using var db = await contexts.CreateDbContextAsync(cancellationToken);
        var hosts = await db.InferenceHosts
            .FromSql($"select * from inference_hosts where last_seen_at > clock_timestamp() - {Silence} and state = 'ready'")
            .AsNoTracking().Include(host => host.Bases).ToListAsync(cancellationToken);
        return [.. hosts.OrderBy(host => Distance(host, baseModel)).ThenBy(host => host.Load).ThenBy(host => host.Id, StringComparer.Ordinal)];
    }

    private static int Distance(InferenceHost host, string baseModel) =>
        host.Bases.FirstOrDefault(held => held.BaseModel == baseModel)?.State switch
        {
            InferenceState.Ready => 0,
            InferenceState.Loading => 1,
            null or InferenceState.Draining => 2,
            InferenceState.Failed => 3,
            _ => 4,
        };
}
