using PeftServer.Core.Jobs;
using PeftServer.Testing;

namespace PeftServer.Core.Tests.Jobs;

public sealed class JobClaimsTests(TestDatabase database) : IClassFixture<TestDatabase>
{
    private static CancellationToken Now => TestContext.Current.CancellationToken;

    [Fact]
    public async Task ClaimNext_ManyWorkers_EachJobGoesToOne()
    {
        using var host = await CoreHost.OnAsync(database);
        await host.EmptyQueueAsync();
        var jobs = await Task.WhenAll(Enumerable.Range(0, 5).Select(_ => host.QueueAsync()));

        var claims = await Task.WhenAll(Enumerable.Range(0, 20).Select(worker =>
            host.Claims.ClaimNextAsync($"worker-{worker}", CoreHost.OneDevice, CoreHost.Lease, Now)));

        claims.OfType<JobLease>().Select(lease => lease.JobId).ShouldBe(jobs, ignoreOrder: true);
        claims.OfType<JobLease>().ShouldAllBe(lease => lease.Epoch == 3); // one for the validation, one for its end
        var job = await host.LoadAsync(jobs[0]);
        (job.State, job.Attempt).ShouldBe((JobState.Running, 1));
        job.StartedAt.ShouldNotBeNull();
    }

    [Fact]
    public async Task ClaimNext_JobTooLarge_TakesTheNextThatFits()
    {
        using var host = await CoreHost.OnAsync(database);
        await host.EmptyQueueAsync();
        var wide = await host.QueueAsync(Job(gpus: 4, memory: null));
        var large = await host.QueueAsync(Job(gpus: 1, memory: 80L << 30));
        var small = await host.QueueAsync(Job(gpus: 1, memory: 1L << 30));
        var capacity = new WorkerCapacity(Devices: 1, MemoryBytes: 16L << 30);

        (await host.Claims.ClaimNextAsync("worker", capacity, CoreHost.Lease, Now))!.JobId.ShouldBe(small);
        (await host.Claims.ClaimNextAsync("worker", capacity, CoreHost.Lease, Now)).ShouldBeNull();
        (await host.Claims.ClaimNextAsync("worker", new WorkerCapacity(4, null), CoreHost.Lease, Now))!.JobId.ShouldBe(wide);
        (await host.Claims.ClaimNextAsync("worker", CoreHost.OneDevice, CoreHost.Lease, Now))!.JobId.ShouldBe(large);
    }

    [Fact]
    public async Task ClaimValidation_TwoDeliveries_OneChecks()
    {
        using var host = await CoreHost.OnAsync(database);
        var job = await host.Jobs.CreateAsync(TestDatabase.NewJob(), Now);

        (await host.Claims.ClaimValidationAsync(job.Id, "one", CoreHost.Lease, Now)).ShouldNotBeNull();
        (await host.Claims.ClaimValidationAsync(job.Id, "two", CoreHost.Lease, Now)).ShouldBeNull();
    }

    [Fact]
    public async Task Renew_AfterExpiryWhileNobodyTookIt_Succeeds()
    {
        using var host = await CoreHost.OnAsync(database);
        await host.Claims.SweepAsync(TimeSpan.Zero, Now); // what other tests of the class let expire waits again
        await host.EmptyQueueAsync();
        var lease = await host.RunAsync(CoreHost.Expired);

        (await host.Claims.RenewAsync(lease, CoreHost.Lease, Now)).Held.ShouldBeTrue();
        (await host.Claims.SweepAsync(TimeSpan.Zero, Now)).ShouldBe(0);
    }

    [Fact]
    public async Task Renew_AfterTheSweepPutItBack_TakesItAgain()
    {
        using var host = await CoreHost.OnAsync(database);
        await host.Claims.SweepAsync(TimeSpan.Zero, Now); // what other tests of the class let expire waits again
        await host.EmptyQueueAsync();
        var lease = await host.RunAsync(CoreHost.Expired);
        (await host.Claims.SweepAsync(TimeSpan.Zero, Now)).ShouldBe(1);
        (await host.LoadAsync(lease.JobId)).State.ShouldBe(JobState.Queued);

        (await host.Claims.RenewAsync(lease, CoreHost.Lease, Now)).Held.ShouldBeTrue();

        var job = await host.LoadAsync(lease.JobId);
        (job.State, job.LeaseOwner, job.LostLeases).ShouldBe((JobState.Running, "worker", 0));
        (await host.Claims.ClaimNextAsync("other", CoreHost.OneDevice, CoreHost.Lease, Now)).ShouldBeNull();
    }

    [Fact]
    public async Task Renew_SomebodyElseHasIt_IsLost()
    {
        using var host = await CoreHost.OnAsync(database);
        var old = await host.RunAsync(CoreHost.Expired);
        await host.Claims.SweepAsync(TimeSpan.Zero, Now);
        var newer = await host.ClaimAsync(old.JobId, owner: "other");

        (await host.Claims.RenewAsync(old, CoreHost.Lease, Now)).Held.ShouldBeFalse();
        (await host.Claims.RenewAsync(newer, CoreHost.Lease, Now)).Held.ShouldBeTrue();
    }

    [Fact]
    public async Task Renew_CancelAsked_TellsIt()
    {
        using var host = await CoreHost.OnAsync(database);
        var lease = await host.RunAsync();
        await host.Jobs.CancelAsync(Tenancy.DefaultProject, lease.JobId, Now);

        (await host.Claims.RenewAsync(lease, CoreHost.Lease, Now)).ShouldBe(new LeaseStatus(Held: true, JobState.Cancelled));
    }

    [Fact]
    public async Task Sweep_TwoAtOnce_EndEachJobOnce()
    {
        using var host = await CoreHost.OnAsync(database);
        await host.Claims.SweepAsync(TimeSpan.Zero, Now); // what other tests of the class let expire waits again
        var lease = await host.RunAsync(CoreHost.Expired);

        var ended = await Task.WhenAll(Enumerable.Range(0, 4).Select(_ => host.Claims.SweepAsync(TimeSpan.Zero, Now)));

        ended.Sum().ShouldBe(1);
        (await host.LoadAsync(lease.JobId)).LostLeases.ShouldBe(1);
    }

    [Fact]
    public async Task Sweep_DatabaseJustStarted_GivesOneLeaseFirst()
    {
        using var host = await CoreHost.OnAsync(database);
        await host.Claims.SweepAsync(TimeSpan.Zero, Now); // what other tests of the class let expire waits again
        await host.RunAsync(CoreHost.Expired);

        (await host.Claims.SweepAsync(TimeSpan.FromDays(3650), Now)).ShouldBe(0);
        (await host.Claims.SweepAsync(TimeSpan.Zero, Now)).ShouldBe(1);
    }

    [Fact]
    public async Task Sweep_JobThatKeepsKillingWorkers_Fails()
    {
        using var host = await CoreHost.OnAsync(database);
        var id = await host.QueueAsync();

        for (var life = 0; life < JobClaims.MaxLostLeases; life++)
        {
            await host.ClaimAsync(id, CoreHost.Expired);
            await host.Claims.SweepAsync(TimeSpan.Zero, Now);
        }

        var job = await host.LoadAsync(id);
        (job.State, job.ErrorCode).ShouldBe((JobState.Failed, "worker_crash_loop"));
    }

    [Fact]
    public async Task HandBack_RunningJob_WaitsAgainWithoutBlame()
    {
        using var host = await CoreHost.OnAsync(database);
        var lease = await host.RunAsync();

        await host.Claims.HandBackAsync(lease, Now);

        var job = await host.LoadAsync(lease.JobId);
        (job.State, job.LostLeases, job.LeaseOwner).ShouldBe((JobState.Queued, 0, null));
        (await host.Claims.RenewAsync(lease, CoreHost.Lease, Now)).Held.ShouldBeFalse(); // given is given
        (await host.ClaimAsync(lease.JobId)).Epoch.ShouldBeGreaterThan(lease.Epoch);
    }

    private static FineTuningJob Job(int gpus, long? memory)
    {
        var job = TestDatabase.NewJob();
        return new FineTuningJob
        {
            BaseModel = job.BaseModel,
            TrainingFile = job.TrainingFile,
            Peft = job.Peft,
            Training = job.Training,
            Request = job.Request,
            Gpus = gpus,
            MemoryBytes = memory,
        };
    }
}
