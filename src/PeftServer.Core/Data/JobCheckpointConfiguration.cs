using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Metadata.Builders;
using PeftServer.Core.Jobs;

namespace PeftServer.Core.Data;

internal sealed class JobCheckpointConfiguration : IEntityTypeConfiguration<JobCheckpoint>
{
    public void Configure(EntityTypeBuilder<JobCheckpoint> checkpoint)
    {
        checkpoint.ToTable("checkpoints");
        checkpoint.HasKey(c => c.Id);
        checkpoint.HasIndex(c => new { c.JobId, c.StepNumber }).IsUnique();
        checkpoint.HasOne<FineTuningJob>().WithMany().HasForeignKey(c => c.JobId).OnDelete(DeleteBehavior.Cascade);
        checkpoint.Property(c => c.CreatedAt).HasDefaultValueSql("now()");
        checkpoint.Property(c => c.Metrics).HasColumnType("jsonb");
    }
}
