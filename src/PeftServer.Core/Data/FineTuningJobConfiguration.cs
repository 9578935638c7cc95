using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Metadata.Builders;
using PeftServer.Core.Jobs;

namespace PeftServer.Core.Data;

internal sealed class FineTuningJobConfiguration : IEntityTypeConfiguration<FineTuningJob>
{
    public void Configure(EntityTypeBuilder<FineTuningJob> job)
    {
        job.ToTable("jobs");
        job.HasKey(j => j.Id);
        job.Property(j => j.CreatedAt).HasDefaultValueSql("now()");
        job.Property(j => j.State).HasNameConversion();
        job.Property(j => j.DesiredState).HasNameConversion();
        job.Property(j => j.Peft).HasJsonConversion();
        job.Property(j => j.Training).HasJsonConversion();
        job.Property(j => j.Method).HasJsonConversion().HasDefaultValueSql("""'{"type": "supervised"}'::jsonb"""); // jobs from before there were others
        job.Property(j => j.AutoSettings).HasJsonConversion().HasDefaultValueSql("'[]'::jsonb");
        job.Property(j => j.Metadata).HasJsonConversion();
        job.Property(j => j.Progress).HasColumnType("jsonb");
        job.Ignore(j => j.Error);
        job.Ignore(j => j.ShortId);

        job.HasIndex(j => new { j.ProjectId, j.CreatedAt, j.Id });
        job.HasIndex(j => new { j.ProjectId, j.RequestSha256 });
        job.HasIndex(j => new { j.ProjectId, j.IdempotencyKey }).IsUnique();
        // What claims and sweeps read: the few rows that are not at their end.
        job.HasIndex(j => new { j.State, j.CreatedAt })
            .HasFilter("state in ('validating_files', 'queued', 'running')")
            .HasDatabaseName("ix_jobs_open");
    }
}
