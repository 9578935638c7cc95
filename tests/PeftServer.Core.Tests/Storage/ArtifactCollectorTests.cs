using System.Text;
using Microsoft.EntityFrameworkCore;
using PeftServer.Core.Files;
using PeftServer.Core.Storage;
using PeftServer.Testing;

namespace PeftServer.Core.Tests.Storage;

public sealed class ArtifactCollectorTests(TestDatabase database) : IClassFixture<TestDatabase>
{
    private static CancellationToken Now => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Collect_Blobs_RemovesOldOnesThatNobodyNames()
    {
        using var host = await CoreHost.OnAsync(database);
        var (named, orphan, young) = (await PutAsync(host, "named"), await PutAsync(host, "orphan"), await PutAsync(host, "young"));
        await host.Get<FileStore>().AddAsync(new StoredFile { Filename = "f", Purpose = "fine-tune", Bytes = 5, Sha256 = named }, Now);
        var adapter = new AdapterManifest([new AdapterFile("w", await PutAsync(host, "weights"), 7)]);
        var lease = await host.RunAsync();
        await host.Writer.WriteAsync(lease, transaction => transaction.SucceedAsync(adapter, "LORA", "ft:collected", 1, Now), Now);
        Age(named, orphan, adapter.Files[0].Sha256);

        (await host.Get<ArtifactCollector>().CollectAsync(Now)).ShouldBe(1);

        var store = host.Get<IArtifactStore>();
        (await store.ExistsAsync(orphan, Now)).ShouldBeFalse();
        (await store.ExistsAsync(young, Now)).ShouldBeTrue();
        (await store.ExistsAsync(named, Now)).ShouldBeTrue();
        (await store.ExistsAsync(adapter.Files[0].Sha256, Now)).ShouldBeTrue();
    }

    [Fact]
    public async Task Collect_AdapterWithoutAName_GoesWithItsBlobs()
    {
        using var host = await CoreHost.OnAsync(database);
        var adapter = new AdapterManifest([new AdapterFile("w", await PutAsync(host, "forgotten"), 7)]);
        var lease = await host.RunAsync();
        await host.Writer.WriteAsync(lease, transaction => transaction.SucceedAsync(adapter, "LORA", "ft:forgotten", 1, Now), Now);
        await host.Get<PeftServer.Core.Models.ModelDirectory>().DeleteFineTunedAsync(Tenancy.DefaultProject, "ft:forgotten", Now);
        await using var db = await host.DbAsync();
        await db.Database.ExecuteSqlAsync($"update adapters set created_at = now() - interval '2 hours' where digest = {adapter.Digest}", Now);
        Age(adapter.Files[0].Sha256);

        await host.Get<ArtifactCollector>().CollectAsync(Now);

        (await db.Adapters.AnyAsync(row => row.Digest == adapter.Digest, Now)).ShouldBeFalse();
        (await host.Get<IArtifactStore>().ExistsAsync(adapter.Files[0].Sha256, Now)).ShouldBeFalse();
    }

    private static async Task<string> PutAsync(CoreHost host, string text)
    {
        using var content = new MemoryStream(Encoding.UTF8.GetBytes(text));
        return (await host.Get<IArtifactStore>().PutAsync(content, 1 << 20, Now)).Sha256;
    }

    private void Age(params string[] blobs)
    {
        foreach (var sha256 in blobs)
        {
            var path = Path.Combine(database.Folder, "artifacts", "blobs", sha256[..2], sha256);
            File.SetLastWriteTimeUtc(path, File.GetLastWriteTimeUtc(path) - TimeSpan.FromHours(2));
        }
    }
}
