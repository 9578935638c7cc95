using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Metadata.Builders;
using PeftServer.Core.Files;

namespace PeftServer.Core.Data;

internal sealed class StoredFileConfiguration : IEntityTypeConfiguration<StoredFile>
{
    public void Configure(EntityTypeBuilder<StoredFile> file)
    {
        file.ToTable("files");
        file.HasKey(f => f.Id);
        file.Property(f => f.CreatedAt).HasDefaultValueSql("now()");
        file.HasIndex(f => new { f.ProjectId, f.CreatedAt, f.Id });
        file.HasIndex(f => f.Sha256); // collection asks which blobs are in use
    }
}
