using PeftServer.Core.Jobs;
using PeftServer.Testing;

namespace PeftServer.Worker.Tests.Training;

public sealed class DatabaseLossTests
{
    private static CancellationToken Now => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Restart_DatabaseAwayLongerThanALease_TrainingGoesOnAndNothingIsLost()
    {
        await using var cluster = await TestCluster.StartOwnAsync();
        var database = new TestDatabase(cluster);
        await database.InitializeAsync();
        try
        {
            using var jobs = await TestJobs.OnAsync(database);
            var id = await jobs.QueueAsync("slow");
            using var worker = WorkerProcess.Start(database);
            await jobs.StepOfAsync(id, 5);

            await cluster.RestartAsync(away: TimeSpan.FromSeconds(3)); // a lease lasts two
            var job = await jobs.EndOfAsync(id);

            job.State.ShouldBe(JobState.Succeeded, job.ErrorMessage);
            (job.Attempt, job.LostLeases).ShouldBe((1, 0)); // the same run, never interrupted
            (await jobs.StepsOfAsync(id)).ShouldBe(Enumerable.Range(1, 40));
            var events = await jobs.EventsOfAsync(id);
            events.Select(row => row.Number).ShouldBe(Enumerable.Range(1, events.Count));
            (await jobs.PublishedAsync(id)).ShouldBe((1, 1));
            await worker.StopAsync(Now);
        }
        finally
        {
            await database.DisposeAsync();
        }
    }
}
