using System.Diagnostics;
using PeftServer.Core.Jobs;
using PeftServer.Testing;

namespace PeftServer.Core.Tests.Jobs;

public sealed class JobFeedTests(TestDatabase database) : IClassFixture<TestDatabase>
{
    private static CancellationToken Now => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Follow_FromAnotherProcess_TellsEverythingOnceAndEndsWithTheJob()
    {
        using var worker = await CoreHost.OnAsync(database);
        using var api = await CoreHost.OnAsync(database);
        var lease = await worker.RunAsync();
        var followed = FollowAsync(api, lease.JobId, 0);

        for (var i = 0; i < 10; i++)
        {
            await worker.Writer.WriteAsync(lease, transaction => transaction.Say($"step {i}"), Now);
        }

        await worker.Writer.WriteAsync(lease, transaction => transaction.Cancel(), Now);

        var events = await followed.WaitAsync(TimeSpan.FromSeconds(30), Now);
        events.Select(row => row.Number).ShouldBe(Enumerable.Range(1, events.Count));
        events[^1].State.ShouldBe(JobState.Cancelled);
    }

    [Fact]
    public async Task Follow_FromANumber_MissesNothingAndRepeatsNothing()
    {
        using var host = await CoreHost.OnAsync(database);
        var lease = await host.RunAsync();
        await host.Writer.WriteAsync(lease, transaction => transaction.Cancel(), Now);
        var all = await host.EventsOfAsync(lease.JobId);

        (await FollowAsync(host, lease.JobId, all[1].Number)).Select(row => row.Number).ShouldBe(all.Skip(2).Select(row => row.Number));
    }

    [Fact]
    public async Task Subscribe_ChangeInAnotherProcess_IsSignalledLongBeforeThePoll()
    {
        using var worker = await CoreHost.OnAsync(database);
        using var api = await CoreHost.OnAsync(database);
        var lease = await worker.RunAsync();
        using var subscription = api.Get<JobSignals>().Subscribe(lease.JobId, poll: TimeSpan.FromMinutes(5));
        await Task.Delay(500, Now); // LISTEN is set up
        await DrainAsync(subscription);

        var since = Stopwatch.StartNew();
        await worker.Writer.WriteAsync(lease, transaction => transaction.Say("news"), Now);
        await subscription.WaitAsync(Now);

        since.Elapsed.ShouldBeLessThan(TimeSpan.FromSeconds(2));
    }

    private static async Task DrainAsync(JobSubscription subscription)
    {
        using var brief = CancellationTokenSource.CreateLinkedTokenSource(Now);
        brief.CancelAfter(200);
        try
        {
            while (true)
            {
                await subscription.WaitAsync(brief.Token);
            }
        }
        catch (OperationCanceledException) when (!Now.IsCancellationRequested)
        {
            // Quiet.
        }
    }

    private static async Task<List<JobEvent>> FollowAsync(CoreHost host, string jobId, int number)
    {
        var events = new List<JobEvent>();
        await foreach (var row in host.Get<JobFeed>().FollowAsync(jobId, number, Now))
        {
            events.Add(row);
        }

        return events;
    }
}
