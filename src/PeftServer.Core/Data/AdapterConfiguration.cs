using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Metadata.Builders;
using PeftServer.Core.Models;

namespace PeftServer.Core.Data;

internal sealed class AdapterConfiguration : IEntityTypeConfiguration<Adapter>
{
    public void Configure(EntityTypeBuilder<Adapter> adapter)
    {
        adapter.ToTable("adapters");
        adapter.HasKey(a => a.Digest);
        adapter.Property(a => a.CreatedAt).HasDefaultValueSql("now()");
        adapter.Property(a => a.Files).HasJsonConversion();
    }
}
