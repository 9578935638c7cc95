using Microsoft.EntityFrameworkCore;
using PeftServer.Core.Files;
using PeftServer.Core.Inference;
using PeftServer.Core.Jobs;
using PeftServer.Core.Models;

namespace PeftServer.Core.Data;

/// <summary>What the hosts remember. Rows of jobs change through <see cref="JobTransaction"/> only.</summary>
public sealed class PeftDbContext(DbContextOptions<PeftDbContext> options) : DbContext(options)
{
    public DbSet<StoredFile> Files => Set<StoredFile>();

    public DbSet<FineTuningJob> Jobs => Set<FineTuningJob>();

    public DbSet<JobEvent> Events => Set<JobEvent>();

    public DbSet<JobCheckpoint> Checkpoints => Set<JobCheckpoint>();

    public DbSet<Adapter> Adapters => Set<Adapter>();

    public DbSet<FineTunedModel> Models => Set<FineTunedModel>();

    public DbSet<ModelAlias> Aliases => Set<ModelAlias>();

    public DbSet<InferenceHost> InferenceHosts => Set<InferenceHost>();

    public DbSet<InferenceBase> InferenceBases => Set<InferenceBase>();

    protected override void OnModelCreating(ModelBuilder modelBuilder) =>
        modelBuilder.ApplyConfigurationsFromAssembly(typeof(PeftDbContext).Assembly);
}
