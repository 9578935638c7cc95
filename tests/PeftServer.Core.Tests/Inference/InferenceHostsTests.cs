using Microsoft.EntityFrameworkCore;
using PeftServer.Core.Inference;
using PeftServer.Testing;

namespace PeftServer.Core.Tests.Inference;

public sealed class InferenceHostsTests(TestDatabase database) : IClassFixture<TestDatabase>
{
    private static CancellationToken Now => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Find_SeveralHosts_HolderOfTheBaseComesFirstThenTheLeastBusy()
    {
        using var core = await CoreHost.OnAsync(database);
        var hosts = core.Get<InferenceHosts>();
        await ReportAsync(hosts, "empty", load: 0);
        await ReportAsync(hosts, "busy", load: 9, "tiny-llama");
        await ReportAsync(hosts, "calm", load: 1, "tiny-llama");
        await hosts.ReportAsync("leaving", "http://leaving", InferenceState.Draining, 0, new Dictionary<string, InferenceState> { ["tiny-llama"] = InferenceState.Ready }, Now);

        (await hosts.FindAsync("tiny-llama", Now)).Select(host => host.Id).ShouldBe(["calm", "busy", "empty"]);

        await hosts.RemoveAsync("calm", Now);
        (await hosts.FindAsync("tiny-llama", Now))[0].Id.ShouldBe("busy");
        await SilenceAsync(core, "busy");
        (await hosts.FindAsync("tiny-llama", Now)).Select(host => host.Id).ShouldBe(["empty"]);
    }

    private static Task ReportAsync(InferenceHosts hosts, string id, int load, params string[] bases) => hosts.ReportAsync(
        id, $"http://{id}", InferenceState.Ready, load, bases.ToDictionary(name => name, _ => InferenceState.Ready), Now);

    private static async Task SilenceAsync(CoreHost core, string id)
    {
        await using var db = await core.DbAsync();
        await db.Database.ExecuteSqlAsync($"update inference_hosts set last_seen_at = now() - interval '1 minute' where id = {id}", Now);
    }
}
