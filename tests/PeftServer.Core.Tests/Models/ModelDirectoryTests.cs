using PeftServer.Core.Models;
using PeftServer.Testing;

namespace PeftServer.Core.Tests.Models;

public sealed class ModelDirectoryTests(TestDatabase database) : IClassFixture<TestDatabase>
{
    private static CancellationToken Now => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Resolve_FolderDroppedIntoTheRoot_IsABaseAtOnce()
    {
        using var host = await CoreHost.OnAsync(database);
        var directory = host.Get<ModelDirectory>();
        (await directory.ResolveAsync(Tenancy.DefaultProject, "dropped", Now)).ShouldBeNull();

        AddBase("dropped");

        var model = await directory.ResolveAsync(Tenancy.DefaultProject, "dropped", Now);
        (model!.BaseName, model.Adapter).ShouldBe(("dropped", null));
        model.Base!.Folder.ShouldBe(Path.Combine(database.Folder, "models", "dropped"));
    }

    [Theory]
    [InlineData("../models/inside")]
    [InlineData("inside/")]
    [InlineData(".")]
    [InlineData("/etc")]
    public async Task Find_NameThatIsAPath_IsNoModel(string name)
    {
        using var host = await CoreHost.OnAsync(database);
        AddBase("inside");

        host.Get<BaseModels>().Find(name).ShouldBeNull();
    }

    [Fact]
    public async Task List_FolderWithoutAConfig_IsNoModel()
    {
        using var host = await CoreHost.OnAsync(database);
        Directory.CreateDirectory(Path.Combine(database.Folder, "models", "half-copied"));

        host.Get<BaseModels>().List().ShouldNotContain(model => model.Name == "half-copied");
    }

    [Fact]
    public async Task Resolve_FineTunedModelAndAlias_LeadToBaseAndAdapter()
    {
        using var host = await CoreHost.OnAsync(database);
        AddBase("tiny-llama");
        var lease = await host.RunAsync();
        var name = FineTunedModel.NameOf("tiny-llama", "acme", "my/suffix", "abc");
        await host.Writer.WriteAsync(lease, transaction => transaction.SucceedAsync(CoreHost.Manifest("resolved"), "LORA", name, 1, Now), Now);
        await using var db = await host.DbAsync();
        db.Aliases.Add(new ModelAlias { Alias = "prod", ModelName = name });
        await db.SaveChangesAsync(Now);
        var directory = host.Get<ModelDirectory>();

        foreach (var asked in new[] { name, "prod" })
        {
            var model = await directory.ResolveAsync(Tenancy.DefaultProject, asked, Now);
            (model!.Name, model.BaseName, model.Adapter!.Digest).ShouldBe((name, "tiny-llama", CoreHost.Manifest("resolved").Digest));
        }

        (await directory.ResolveAsync("someone-else", name, Now)).ShouldBeNull();
        (await directory.ListFineTunedAsync(Tenancy.DefaultProject, Now)).Single().JobId.ShouldBe(lease.JobId);
        (await directory.DeleteFineTunedAsync(Tenancy.DefaultProject, name, Now)).ShouldBeTrue();
        (await directory.ResolveAsync(Tenancy.DefaultProject, "prod", Now)).ShouldBeNull();
    }

    [Theory]
    [InlineData("mine", null, "ft:tiny-llama:acme:mine:id")]
    [InlineData(null, null, "ft:tiny-llama:acme::id")]
    [InlineData("mine", 90, "ft:tiny-llama:acme:mine:id:ckpt-step-90")]
    public void NameOf_Parts_HaveOpenAisForm(string? suffix, int? step, string expected) =>
        FineTunedModel.NameOf("tiny-llama", "acme", suffix, "id", step).ShouldBe(expected);

    private void AddBase(string name)
    {
        var folder = Directory.CreateDirectory(Path.Combine(database.Folder, "models", name)).FullName;
        File.WriteAllText(Path.Combine(folder, "config.json"), "{}");
    }
}
