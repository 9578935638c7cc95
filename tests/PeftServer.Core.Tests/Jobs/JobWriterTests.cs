using Microsoft.EntityFrameworkCore;
using PeftServer.Core.Jobs;
using PeftServer.Testing;

namespace PeftServer.Core.Tests.Jobs;

public sealed class JobWriterTests(TestDatabase database) : IClassFixture<TestDatabase>
{
    private static CancellationToken Now => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Write_ManyAtOnce_NumbersFollowEachOtherWithoutAGap()
    {
        using var host = await CoreHost.OnAsync(database);
        var lease = await host.RunAsync();

        await Task.WhenAll(Enumerable.Range(0, 20).Select(i => host.Writer.WriteAsync(
            lease,
            transaction =>
            {
                transaction.Say($"{i} a");
                transaction.Say($"{i} b");
            },
            Now)));

        var events = await host.EventsOfAsync(lease.JobId);
        events.Select(row => row.Number).ShouldBe(Enumerable.Range(1, events.Count));
        events.Count(row => row.Message.EndsWith('a')).ShouldBe(20);
        (await host.LoadAsync(lease.JobId)).LastEventNumber.ShouldBe(events.Count);
    }

    [Fact]
    public async Task Write_OlderEpoch_ChangesNothing()
    {
        using var host = await CoreHost.OnAsync(database);
        var zombie = await host.RunAsync(CoreHost.Expired);
        await host.Claims.SweepAsync(TimeSpan.Zero, Now);
        var owner = await host.ClaimAsync(zombie.JobId, owner: "other");
        var before = await host.EventsOfAsync(zombie.JobId);

        await Should.ThrowAsync<LeaseLostException>(() => host.Writer.WriteAsync(zombie, transaction => transaction.Say("still here"), Now));
        await Should.ThrowAsync<LeaseLostException>(() => SucceedAsync(host, zombie, "zombie"));
        await Should.ThrowAsync<LeaseLostException>(() => host.Claims.HandBackAsync(zombie, Now));

        (await host.EventsOfAsync(zombie.JobId)).Count.ShouldBe(before.Count);
        await SucceedAsync(host, owner, "owner");
        await using var db = await host.DbAsync();
        (await db.Models.SingleAsync(model => model.JobId == zombie.JobId, Now)).AdapterDigest.ShouldBe(CoreHost.Manifest("owner").Digest);
        (await db.Adapters.AnyAsync(adapter => adapter.Digest == CoreHost.Manifest("zombie").Digest, Now)).ShouldBeFalse();
    }

    [Fact]
    public async Task Write_JobThatIsOver_ChangesNothing()
    {
        using var host = await CoreHost.OnAsync(database);
        var lease = await host.RunAsync();
        await SucceedAsync(host, lease, "a");

        await Should.ThrowAsync<LeaseLostException>(() => host.Writer.WriteAsync(lease, transaction => transaction.Fail(new JobError("late", "Too late")), Now));

        (await host.LoadAsync(lease.JobId)).State.ShouldBe(JobState.Succeeded);
    }

    [Fact]
    public async Task Write_Throws_CommitsNothing()
    {
        using var host = await CoreHost.OnAsync(database);
        var lease = await host.RunAsync();
        var before = await host.LoadAsync(lease.JobId);

        await Should.ThrowAsync<TimeoutException>(() => host.Writer.WriteAsync(
            lease,
            transaction =>
            {
                transaction.Say("half a thought");
                throw new TimeoutException();
            },
            Now));

        (await host.LoadAsync(lease.JobId)).LastEventNumber.ShouldBe(before.LastEventNumber);
    }

    [Fact]
    public async Task Succeed_SameBytesFromTwoJobs_IsOneAdapterUnderTwoNames()
    {
        using var host = await CoreHost.OnAsync(database);
        var (one, two) = (await host.RunAsync(), await host.RunAsync());

        await SucceedAsync(host, one, "same");
        await SucceedAsync(host, two, "same");

        await using var db = await host.DbAsync();
        var digest = CoreHost.Manifest("same").Digest;
        (await db.Adapters.CountAsync(adapter => adapter.Digest == digest, Now)).ShouldBe(1);
        (await db.Models.CountAsync(model => model.AdapterDigest == digest, Now)).ShouldBe(2);
        (await host.LoadAsync(one.JobId)).TrainedTokens.ShouldBe(7);
    }

    [Fact]
    public async Task Fail_HostileWords_AreStoredCleaned()
    {
        using var host = await CoreHost.OnAsync(database);
        var lease = await host.RunAsync();

        await host.Writer.WriteAsync(lease, transaction => transaction.Fail(new JobError("crashed", "NUL \0, half \uD800 and " + new string('x', 100_000))), Now);

        var job = await host.LoadAsync(lease.JobId);
        job.State.ShouldBe(JobState.Failed);
        job.ErrorMessage.ShouldNotBeNull();
        job.ErrorMessage.ShouldStartWith("NUL \uFFFD, half \uFFFD and xxx");
        job.ErrorMessage.Length.ShouldBe(ForeignText.MaxLength);
    }

    private static Task SucceedAsync(CoreHost host, JobLease lease, string content) => host.Writer.WriteAsync(
        lease,
        transaction => transaction.SucceedAsync(CoreHost.Manifest(content), "LORA", $"ft:{lease.JobId}", trainedTokens: 7, Now),
        Now);
}
