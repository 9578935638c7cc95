using Microsoft.EntityFrameworkCore;
using PeftServer.Core.Data;
using PeftServer.Core.Storage;

namespace PeftServer.Core.Files;

/// <summary>Files as their owners see them. The bytes are put into the <see cref="IArtifactStore"/> first, the row second.</summary>
public sealed class FileStore(IDbContextFactory<PeftDbContext> contexts, IArtifactStore artifacts)
{
    public async Task<StoredFile> AddAsync(StoredFile file, CancellationToken cancellationToken)
    {
        await using var db = await contexts.CreateDbContextAsync(cancellationToken);
        db.Files.Add(file);
        await db.SaveChangesAsync(cancellationToken);
        return file;
    }

    public async Task<StoredFile?> FindAsync(string projectId, string fileId, CancellationToken cancellationToken)
    {
        await using var db = await contexts.CreateDbContextAsync(cancellationToken);
        return await db.Files.AsNoTracking().SingleOrDefaultAsync(file => file.Id == fileId && file.ProjectId == projectId, cancellationToken);
    }

    /// <summary>Its bytes. Throws <see cref="ArtifactNotFoundException"/> when the store has lost them.</summary>
    public Task<Stream> OpenAsync(StoredFile file, CancellationToken cancellationToken) => artifacts.OpenAsync(file.Sha256, cancellationToken);

    /// <summary>By time of creation, from behind the file <paramref name="after"/>; null when there is no such file.</summary>
    public async Task<Page<StoredFile>?> ListAsync(
        string projectId, string? purpose, string? after, int limit, bool newestFirst, CancellationToken cancellationToken)
    {
        await using var db = await contexts.CreateDbContextAsync(cancellationToken);
        var files = db.Files.AsNoTracking().Where(file => file.ProjectId == projectId && (purpose == null || file.Purpose == purpose));
        if (after is not null)
        {
            if (await FindAsync(projectId, after, cancellationToken) is not { } last)
            {
                return null;
            }

            files = newestFirst
                ? files.Where(file => EF.Functions.LessThan(ValueTuple.Create(file.CreatedAt, file.Id), ValueTuple.Create(last.CreatedAt, last.Id)))
                : files.Where(file => EF.Functions.GreaterThan(ValueTuple.Create(file.CreatedAt, file.Id), ValueTuple.Create(last.CreatedAt, last.Id)));
        }

        var ordered = newestFirst
            ? files.OrderByDescending(file => file.CreatedAt).ThenByDescending(file => file.Id)
            : files.OrderBy(file => file.CreatedAt).ThenBy(file => file.Id);
        return Page<StoredFile>.Of(await ordered.Take(limit + 1).ToListAsync(cancellationToken), limit);
    }

    /// <summary>Returns false when there is no such file. The bytes go with the next collection, unless another file has them too.</summary>
    public async Task<bool> DeleteAsync(string projectId, string fileId, CancellationToken cancellationToken)
    {
        await using var db = await contexts.CreateDbContextAsync(cancellationToken);
        return await db.Files.Where(file => file.Id == fileId && file.ProjectId == projectId).ExecuteDeleteAsync(cancellationToken) == 1;
    }
}
