using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Metadata.Builders;
using PeftServer.Core.Jobs;
using PeftServer.Core.Models;

namespace PeftServer.Core.Data;

internal sealed class FineTunedModelConfiguration : IEntityTypeConfiguration<FineTunedModel>
{
    public void Configure(EntityTypeBuilder<FineTunedModel> model)
    {
        model.ToTable("models");
        model.HasKey(m => m.Name);
        model.Property(m => m.CreatedAt).HasDefaultValueSql("now()");
        model.HasOne<Adapter>().WithMany().HasForeignKey(m => m.AdapterDigest).OnDelete(DeleteBehavior.Restrict);
        model.HasOne<FineTuningJob>().WithMany().HasForeignKey(m => m.JobId).OnDelete(DeleteBehavior.SetNull);
        model.HasIndex(m => m.ProjectId);
        model.HasIndex(m => m.JobId).HasFilter("is_final").IsUnique().HasDatabaseName("ix_models_one_final_a_job");
    }
}

internal sealed class ModelAliasConfiguration : IEntityTypeConfiguration<ModelAlias>
{
    public void Configure(EntityTypeBuilder<ModelAlias> alias)
    {
        alias.ToTable("model_aliases");
        alias.HasKey(a => new { a.ProjectId, a.Alias });
        alias.HasOne<FineTunedModel>().WithMany().HasForeignKey(a => a.ModelName).OnDelete(DeleteBehavior.Cascade);
        alias.Property(a => a.CreatedAt).HasDefaultValueSql("now()");
    }
}
