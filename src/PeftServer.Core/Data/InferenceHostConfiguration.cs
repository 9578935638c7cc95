using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Metadata.Builders;
using PeftServer.Core.Inference;

namespace PeftServer.Core.Data;

internal sealed class InferenceHostConfiguration : IEntityTypeConfiguration<InferenceHost>
{
    public void Configure(EntityTypeBuilder<InferenceHost> host)
    {
        host.ToTable("inference_hosts");
        host.HasKey(h => h.Id);
        host.Property(h => h.State).HasNameConversion();
        host.HasMany(h => h.Bases).WithOne().HasForeignKey(b => b.HostId).OnDelete(DeleteBehavior.Cascade);
    }
}

internal sealed class InferenceBaseConfiguration : IEntityTypeConfiguration<InferenceBase>
{
    public void Configure(EntityTypeBuilder<InferenceBase> held)
    {
        held.ToTable("inference_bases");
        held.HasKey(b => new { b.HostId, b.BaseModel });
        held.HasIndex(b => b.BaseModel);
        held.Property(b => b.State).HasNameConversion();
    }
}
