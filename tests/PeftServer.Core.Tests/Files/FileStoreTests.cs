using PeftServer.Core.Files;
using PeftServer.Testing;

namespace PeftServer.Core.Tests.Files;

public sealed class FileStoreTests(TestDatabase database) : IClassFixture<TestDatabase>
{
    private static CancellationToken Now => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task List_ByPages_VisitsEveryFileOnceInOrder(bool newestFirst)
    {
        using var host = await CoreHost.OnAsync(database);
        var project = $"paged-{newestFirst}";
        var ids = new List<string>();
        for (var i = 0; i < 5; i++)
        {
            ids.Add((await AddAsync(host, project, i == 2 ? "batch" : "fine-tune")).Id);
        }

        var files = host.Get<FileStore>();
        var first = await files.ListAsync(project, "fine-tune", null, 3, newestFirst, Now);
        var rest = await files.ListAsync(project, "fine-tune", first!.Items[^1].Id, 3, newestFirst, Now);

        (first.HasMore, rest!.HasMore).ShouldBe((true, false));
        ids.RemoveAt(2);
        var expected = newestFirst ? ids.AsEnumerable().Reverse() : ids;
        first.Items.Concat(rest.Items).Select(file => file.Id).ShouldBe(expected);
    }

    [Fact]
    public async Task Delete_File_IsGoneForItsProjectOnly()
    {
        using var host = await CoreHost.OnAsync(database);
        var file = await AddAsync(host, "mine", "fine-tune");
        var files = host.Get<FileStore>();

        (await files.DeleteAsync("yours", file.Id, Now)).ShouldBeFalse();
        (await files.FindAsync("mine", file.Id, Now)).ShouldNotBeNull();
        (await files.DeleteAsync("mine", file.Id, Now)).ShouldBeTrue();
        (await files.FindAsync("mine", file.Id, Now)).ShouldBeNull();
    }

    private static Task<StoredFile> AddAsync(CoreHost host, string project, string purpose) => host.Get<FileStore>().AddAsync(
        new StoredFile { ProjectId = project, Filename = "train.jsonl", Purpose = purpose, Bytes = 1, Sha256 = CoreHost.Sha("x") }, Now);
}
