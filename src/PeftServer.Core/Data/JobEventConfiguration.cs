using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Metadata.Builders;
using PeftServer.Core.Jobs;

namespace PeftServer.Core.Data;

internal sealed class JobEventConfiguration : IEntityTypeConfiguration<JobEvent>
{
    public void Configure(EntityTypeBuilder<JobEvent> row)
    {
        row.ToTable("events");
        row.HasKey(e => new { e.JobId, e.Number });
        row.Property(e => e.Id).IsRequired(); // convention takes an Id that is no key for an optional one
        row.HasIndex(e => e.Id).IsUnique();
        row.HasOne<FineTuningJob>().WithMany().HasForeignKey(e => e.JobId).OnDelete(DeleteBehavior.Cascade);
        row.Property(e => e.CreatedAt).HasDefaultValueSql("now()");
        row.Property(e => e.Type).HasNameConversion();
        row.Property(e => e.Level).HasNameConversion();
        row.Property(e => e.State).HasNameConversion();
        row.Property(e => e.Data).HasColumnType("jsonb");
    }
}
