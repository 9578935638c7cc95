using PeftServer.Core.Jobs;
using PeftServer.Engine.Adapters.Lora;
using PeftServer.Testing;

namespace PeftServer.Core.Tests.Jobs;

public sealed class JobStoreTests(TestDatabase database) : IClassFixture<TestDatabase>
{
    private static CancellationToken Now => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Create_Job_ComesBackAsItWas()
    {
        using var host = await CoreHost.OnAsync(database);
        var job = await host.Jobs.CreateAsync(Job("round-trip", new() { ["team"] = "a\"b" }), Now);

        var found = await host.Jobs.FindAsync("round-trip", job.Id, Now);

        found.ShouldNotBeNull();
        found.State.ShouldBe(JobState.ValidatingFiles);
        found.Peft.ShouldBeOfType<LoraConfig>().R.ShouldBe(4);
        found.Training.MaxSteps.ShouldBe(3);
        found.Metadata!["team"].ShouldBe("a\"b");
        found.Request.ShouldBe(job.Request);
        (await host.Jobs.FindAsync(Tenancy.DefaultProject, job.Id, Now)).ShouldBeNull(); // another project's
    }

    [Fact]
    public async Task Create_SameIdempotencyKey_IsTheFirstJob()
    {
        using var host = await CoreHost.OnAsync(database);

        var jobs = await Task.WhenAll(Enumerable.Range(0, 5).Select(_ => host.Jobs.CreateAsync(Job("idempotent", key: "once"), Now)));

        jobs.Select(job => job.Id).Distinct().Count().ShouldBe(1);
        (await host.Jobs.CreateAsync(Job("other-project", key: "once"), Now)).Id.ShouldNotBe(jobs[0].Id);
    }

    [Fact]
    public async Task FindRecent_SameRequest_IsFoundWithinTheWindowOnly()
    {
        using var host = await CoreHost.OnAsync(database);
        var job = await host.Jobs.CreateAsync(Job("recent"), Now);

        (await host.Jobs.FindRecentAsync("recent", "abc", TimeSpan.FromMinutes(1), Now))!.Id.ShouldBe(job.Id);
        (await host.Jobs.FindRecentAsync("recent", "abc", TimeSpan.Zero, Now)).ShouldBeNull();
        (await host.Jobs.FindRecentAsync("recent", "abd", TimeSpan.FromMinutes(1), Now)).ShouldBeNull();
    }

    [Fact]
    public async Task List_ByPages_VisitsEveryJobOnceNewestFirst()
    {
        using var host = await CoreHost.OnAsync(database);
        var ids = new List<string>();
        for (var i = 0; i < 7; i++)
        {
            ids.Insert(0, (await host.Jobs.CreateAsync(Job("paged"), Now)).Id);
        }

        var seen = new List<string>();
        for (string? after = null; ;)
        {
            var page = await host.Jobs.ListAsync("paged", after, 3, metadata: null, Now);
            seen.AddRange(page!.Items.Select(job => job.Id));
            if (!page.HasMore)
            {
                break;
            }

            after = seen[^1];
        }

        seen.ShouldBe(ids);
        (await host.Jobs.ListAsync("paged", "ftjob-unknown", 3, metadata: null, Now)).ShouldBeNull();
    }

    [Fact]
    public async Task List_ByMetadata_FindsPairsAndTheirAbsence()
    {
        using var host = await CoreHost.OnAsync(database);
        var red = await host.Jobs.CreateAsync(Job("metadata", new() { ["colour"] = "red", ["size"] = "1" }), Now);
        await host.Jobs.CreateAsync(Job("metadata", new() { ["colour"] = "blue" }), Now);
        var bare = await host.Jobs.CreateAsync(Job("metadata"), Now);

        (await host.Jobs.ListAsync("metadata", null, 9, new Dictionary<string, string> { ["colour"] = "red" }, Now))!.Items.Single().Id.ShouldBe(red.Id);
        (await host.Jobs.ListAsync("metadata", null, 9, new Dictionary<string, string>(), Now))!.Items.Single().Id.ShouldBe(bare.Id);
        (await host.Jobs.ListAsync("metadata", null, 9, null, Now))!.Items.Count.ShouldBe(3);
    }

    [Fact]
    public async Task Cancel_WaitingJob_IsCancelledAtOnce()
    {
        using var host = await CoreHost.OnAsync(database);
        var id = await host.QueueAsync();

        var (job, accepted) = (await host.Jobs.CancelAsync(Tenancy.DefaultProject, id, Now))!.Value;

        (job.State, accepted).ShouldBe((JobState.Cancelled, true));
        (await host.LoadAsync(id)).FinishedAt.ShouldNotBeNull();
        (await host.Jobs.CancelAsync(Tenancy.DefaultProject, id, Now))!.Value.Accepted.ShouldBeFalse();
    }

    [Fact]
    public async Task Cancel_RunningJob_AsksItsWorker()
    {
        using var host = await CoreHost.OnAsync(database);
        var lease = await host.RunAsync();

        (await host.Jobs.CancelAsync(Tenancy.DefaultProject, lease.JobId, Now))!.Value.Job.State.ShouldBe(JobState.Running);

        (await host.LoadAsync(lease.JobId)).DesiredState.ShouldBe(JobState.Cancelled);
        (await host.Jobs.CancelAsync("someone-else", lease.JobId, Now)).ShouldBeNull();
    }

    [Fact]
    public async Task ListEvents_ByPages_VisitsEveryEventOnceNewestFirst()
    {
        using var host = await CoreHost.OnAsync(database);
        var lease = await host.RunAsync();
        var all = (await host.EventsOfAsync(lease.JobId)).Reverse().ToList();

        var first = await host.Jobs.ListEventsAsync(lease.JobId, null, 2, Now);
        var rest = await host.Jobs.ListEventsAsync(lease.JobId, first!.Items[^1].Id, 100, Now);

        (first.HasMore, rest!.HasMore).ShouldBe((true, false));
        first.Items.Concat(rest.Items).Select(row => row.Id).ShouldBe(all.Select(row => row.Id));
    }

    private static FineTuningJob Job(string project, Dictionary<string, string>? metadata = null, string? key = null)
    {
        var job = TestDatabase.NewJob();
        return new FineTuningJob
        {
            ProjectId = project,
            BaseModel = job.BaseModel,
            TrainingFile = job.TrainingFile,
            Peft = job.Peft,
            Training = job.Training,
            Request = """{"model": "tiny-llama", "suffix": "\u0000"}""", // foreign text stays the text it came as
            RequestSha256 = "abc",
            Metadata = metadata,
            IdempotencyKey = key,
        };
    }
}
