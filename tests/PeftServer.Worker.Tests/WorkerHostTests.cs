using System.Diagnostics;
using PeftServer.Core.Jobs;
using PeftServer.Testing;

namespace PeftServer.Worker.Tests;

public sealed class WorkerHostTests(TestDatabase database) : IClassFixture<TestDatabase>
{
    private static CancellationToken Now => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Run_WholeJob_LoadsNoLibtorchAndTellsTheTrainerNoSecret()
    {
        using var jobs = await TestJobs.OnAsync(database);
        using var worker = WorkerProcess.Start(database, ("Auth:ApiKey", "sk-secret"));
        var id = await jobs.QueueAsync("environment");

        var job = await jobs.EndOfAsync(id);

        job.ErrorMessage.ShouldNotBeNull();
        job.ErrorMessage.ShouldContain("PATH=");
        job.ErrorMessage.ShouldContain("niceness 10"); // on the CPU it must not starve the lease
        job.ErrorMessage.ShouldNotContain("ConnectionStrings");
        job.ErrorMessage.ShouldNotContain("WORKER_TEST_SECRET");
        var maps = await File.ReadAllTextAsync($"/proc/{worker.Id}/maps", Now);
        maps.ShouldContain("PeftServer.Worker.dll");
        maps.ShouldNotContain("libtorch", Case.Insensitive);
        await worker.StopAsync(Now);
    }

    [Fact]
    public async Task Enqueue_IdleWorker_StartsAtOnce()
    {
        using var jobs = await TestJobs.OnAsync(database);
        using var worker = WorkerProcess.Start(database, ("Worker:SweepSeconds", "3600"));
        await jobs.EndOfAsync(await jobs.QueueAsync("quick")); // it is up

        var since = Stopwatch.StartNew();
        var id = await jobs.QueueAsync("quick");
        await jobs.UntilAsync(id, job => job.State is JobState.Running);

        since.Elapsed.ShouldBeLessThan(TimeSpan.FromSeconds(2));
        await jobs.EndOfAsync(id);
        await worker.StopAsync(Now);
    }
}
