using System.Diagnostics;
using PeftServer.Core;
using PeftServer.Core.Jobs;
using PeftServer.Testing;

namespace PeftServer.Worker.Tests.Training;

/// <summary>What may happen to a worker and its database while a job runs. Whatever it is: one end, one adapter, no lost step.</summary>
public sealed class WorkerLossTests(TestDatabase database) : IClassFixture<TestDatabase>
{
    private const int Steps = 40;
    private static CancellationToken Now => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Kill_WorkerWithARunningJob_TrainerEndsBeforeTheLeaseAndTheNextWorkerPublishesOnce()
    {
        using var jobs = await TestJobs.OnAsync(database);
        var id = await jobs.QueueAsync("slow");
        int trainer;
        using (var worker = WorkerProcess.Start(database))
        {
            trainer = TestJobs.TrainerOf(database, await jobs.StepOfAsync(id, 5));
            worker.Kill();
        }

        await GoneAsync(trainer, TimeSpan.FromSeconds(1)); // leases last two here
        (await jobs.Get<JobClaims>().LoadAsync(id, Now)).State.ShouldBe(JobState.Running); // nobody could say anything

        using var next = WorkerProcess.Start(database);
        var job = await jobs.EndOfAsync(id);

        job.State.ShouldBe(JobState.Succeeded, job.ErrorMessage);
        (job.Attempt, job.LostLeases).ShouldBe((2, 1));
        (await jobs.PublishedAsync(id)).ShouldBe((1, 1));
        await ShouldTellEveryStepAsync(jobs, id, Steps);
        await next.StopAsync(Now);
    }

    [Fact]
    public async Task Kill_WorkerBehindAFinishedTrainer_NextWorkerPublishesWithoutTraining()
    {
        using var jobs = await TestJobs.OnAsync(database);
        var id = await jobs.QueueAsync("slow");
        using (var worker = WorkerProcess.Start(database))
        {
            var job = await jobs.StepOfAsync(id, 2);
            worker.Signal("STOP"); // it sees nothing any more, its trainer goes on to the end
            await GoneAsync(TestJobs.TrainerOf(database, job), TimeSpan.FromSeconds(20));
            worker.Kill();
        }

        using var next = WorkerProcess.Start(database);
        var ended = await jobs.EndOfAsync(id);

        ended.State.ShouldBe(JobState.Succeeded, ended.ErrorMessage);
        (await jobs.StepsOfAsync(id)).ShouldBe(Enumerable.Range(1, Steps)); // stored from the file it left
        Directory.GetDirectories(Path.Combine(database.Folder, "runs", id)).Length.ShouldBe(1);
        await next.StopAsync(Now);
    }

    [Fact]
    public async Task Stop_WorkerBeyondItsLease_AnotherTakesOverAndTheZombieChangesNothing()
    {
        using var jobs = await TestJobs.OnAsync(database);
        var id = await jobs.QueueAsync("long");
        // Should it be stopped in the middle of a transaction, its lock goes sooner than by default.
        var impatient = database.ConnectionString + ";Options=-c idle_in_transaction_session_timeout=3000";
        using var zombie = WorkerProcess.Start(database, ("ConnectionStrings:Postgres", impatient));
        var running = await jobs.StepOfAsync(id, 3);
        var orphan = TestJobs.TrainerOf(database, running);
        zombie.Signal("STOP");

        using var other = WorkerProcess.Start(database);
        await jobs.UntilAsync(id, job => job.RunAttempt > running.RunAttempt);
        TestJobs.IsAlive(orphan).ShouldBeFalse(); // two never train one job on a host
        zombie.Signal("CONT");
        var job = await jobs.EndOfAsync(id);

        job.State.ShouldBe(JobState.Succeeded, job.ErrorMessage);
        job.Attempt.ShouldBe(2);
        (await jobs.PublishedAsync(id)).Models.ShouldBe(1);
        await ShouldTellEveryStepAsync(jobs, id, 120);
        await zombie.StopAsync(Now);
        await other.StopAsync(Now);
    }

    [Fact]
    public async Task Cancel_JobOfAKilledWorker_EndsWithTheSweep()
    {
        using var jobs = await TestJobs.OnAsync(database);
        var id = await jobs.QueueAsync("slow");
        using (var worker = WorkerProcess.Start(database))
        {
            await jobs.StepOfAsync(id, 1);
            worker.Kill();
        }

        await jobs.Get<JobStore>().CancelAsync(Tenancy.DefaultProject, id, Now);
        using var next = WorkerProcess.Start(database);

        (await jobs.EndOfAsync(id)).State.ShouldBe(JobState.Cancelled);
        await next.StopAsync(Now);
    }

    // A step that was told before its checkpoint was written is done, and told, again: by another attempt.
    private static async Task ShouldTellEveryStepAsync(TestJobs jobs, string id, int steps)
    {
        var told = (await jobs.EventsOfAsync(id)).Where(row => row.Type is JobEventType.Metrics)
            .Select(row => (row.Attempt, Step: row.Data!.Value.GetProperty("step").GetInt32())).ToList();
        told.Select(one => one.Step).Distinct().ShouldBe(Enumerable.Range(1, steps));
        told.ShouldBeUnique();
        told.Count.ShouldBeLessThanOrEqualTo(steps + 1);
    }

    private static async Task GoneAsync(int processId, TimeSpan patience)
    {
        for (var since = Stopwatch.StartNew(); TestJobs.IsAlive(processId); await Task.Delay(20, Now))
        {
            since.Elapsed.ShouldBeLessThan(patience, "the trainer is still there");
        }
    }
}
