using System.Diagnostics;
using Hangfire;
using Microsoft.Extensions.Hosting;
using PeftServer.Core;
using PeftServer.Core.Jobs;
using PeftServer.Core.Models;
using PeftServer.Core.Storage;
using PeftServer.Engine.Training;
using PeftServer.Testing;

namespace PeftServer.Worker.Tests.Training;

public sealed class JobSupervisorTests(TestDatabase database) : IClassFixture<TestDatabase>
{
    private static CancellationToken Now => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Run_TrainerSucceeds_PublishesTheAdapterAndTellsEveryStep()
    {
        using var jobs = await TestJobs.OnAsync(database);
        using var worker = await StartWorkerAsync();
        var id = await jobs.QueueAsync("quick");

        var job = await jobs.EndOfAsync(id);

        job.State.ShouldBe(JobState.Succeeded, job.ErrorMessage);
        job.TrainedTokens.ShouldBe(1234);
        job.FineTunedModel.ShouldBe($"ft:tiny-llama:peftserver::{job.ShortId}");
        var events = await jobs.EventsOfAsync(id);
        events.Select(row => row.Number).ShouldBe(Enumerable.Range(1, events.Count));
        events[^2].Message.ShouldBe($"New fine-tuned model created: {job.FineTunedModel}");
        events[^1].Message.ShouldBe("The job has successfully completed");
        (await jobs.StepsOfAsync(id)).ShouldBe([1, 2, 3]);
        var files = jobs.Get<PeftServer.Core.Files.FileStore>();
        var results = await files.FindAsync(Tenancy.DefaultProject, job.ResultFiles.ShouldHaveSingleItem(), Now);
        results!.Purpose.ShouldBe("fine-tune-results");
        using (var csv = new StreamReader(await files.OpenAsync(results, Now)))
        {
            (await csv.ReadToEndAsync(Now)).ShouldBe("step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy\n1,1.5,,,\n2,1.5,,,\n3,1.5,,,\n");
        }

        var model = await jobs.Get<ModelDirectory>().ResolveAsync(Tenancy.DefaultProject, job.FineTunedModel!, Now);
        var folder = await jobs.Get<AdapterFolders>().MaterializeAsync(model!.Adapter!, Now);
        (await File.ReadAllTextAsync(Path.Combine(folder, "adapter_model.safetensors"), Now)).ShouldBe("the same weights from the same seed");
        await worker.StopAsync(Now);
    }

    [Fact]
    public async Task Run_TrainerCrashes_FailsWithItsLastWordsWhateverTheirBytes()
    {
        using var jobs = await TestJobs.OnAsync(database);
        using var worker = await StartWorkerAsync();
        var id = await jobs.QueueAsync("crash");

        var job = await jobs.EndOfAsync(id);

        job.State.ShouldBe(JobState.Failed);
        job.ErrorCode.ShouldBe("trainer_crashed");
        job.ErrorMessage.ShouldNotBeNull();
        job.ErrorMessage.ShouldStartWith("The trainer ended with exit code 3. Its last words: a stack trace\uFFFD with");
        (await jobs.EventsOfAsync(id))[^1].Level.ShouldBe(TrainingEventLevel.Error);
        await worker.StopAsync(Now);
        jobs.Get<JobStorage>().GetMonitoringApi().FailedCount().ShouldBeGreaterThan(0);
    }

    [Fact]
    public async Task Run_TrainerIsKilled_NamesTheSignal()
    {
        using var jobs = await TestJobs.OnAsync(database);
        using var worker = await StartWorkerAsync();

        var job = await jobs.EndOfAsync(await jobs.QueueAsync("killed"));

        job.ErrorMessage.ShouldBe("The trainer was killed by signal 9 (SIGKILL; was the host out of memory?).");
        await worker.StopAsync(Now);
    }

    [Fact]
    public async Task Run_TrainerFails_FailsWithItsReason()
    {
        using var jobs = await TestJobs.OnAsync(database);
        using var worker = await StartWorkerAsync();

        var job = await jobs.EndOfAsync(await jobs.QueueAsync("fails"));

        job.Error.ShouldBe(new JobError("training_failed", "Row 7 is empty"));
        await worker.StopAsync(Now);
    }

    [Fact]
    public async Task Run_TrainerBabbles_KeepsWhatCanBeKept()
    {
        using var jobs = await TestJobs.OnAsync(database);
        using var worker = await StartWorkerAsync();
        var id = await jobs.QueueAsync("babble");

        (await jobs.EndOfAsync(id)).State.ShouldBe(JobState.Succeeded);

        var events = await jobs.EventsOfAsync(id);
        events.ShouldContain(row => row.Level == TrainingEventLevel.Warn && row.Message.StartsWith("The trainer wrote a line that is no event"));
        var metrics = events.Single(row => row.Type is JobEventType.Metrics).Data!.Value;
        metrics.TryGetProperty("train_loss", out _).ShouldBeFalse(); // 1e999 is no number of JSON's
        metrics.GetProperty("note").GetString().ShouldBe("a\uFFFDb");
        await worker.StopAsync(Now);
    }

    [Theory]
    [InlineData("slow")]
    [InlineData("stubborn")]
    public async Task Cancel_RunningJob_ProcessIsGoneAndRowSaysSoWithinTwoSeconds(string script)
    {
        using var jobs = await TestJobs.OnAsync(database);
        using var worker = await StartWorkerAsync();
        var id = await jobs.QueueAsync(script);
        var running = await jobs.UntilAsync(id, job => job.RunAttempt > 0);
        var trainer = await TrainerOfAsync(running);

        var since = Stopwatch.StartNew();
        await jobs.Get<JobStore>().CancelAsync(Tenancy.DefaultProject, id, Now);
        var job = await jobs.EndOfAsync(id);

        since.Elapsed.ShouldBeLessThan(TimeSpan.FromSeconds(2));
        job.State.ShouldBe(JobState.Cancelled);
        TestJobs.IsAlive(trainer).ShouldBeFalse();
        (await jobs.PublishedAsync(id)).Models.ShouldBe(0);
        await worker.StopAsync(Now);
    }

    [Fact]
    public async Task Stop_WorkerWithARunningJob_HandsItBackAndTheNextOneGoesOn()
    {
        using var jobs = await TestJobs.OnAsync(database);
        var id = await jobs.QueueAsync("slow");
        using (var worker = await StartWorkerAsync())
        {
            await jobs.StepOfAsync(id, 3);
            var since = Stopwatch.StartNew();
            await worker.StopAsync(Now);
            since.Elapsed.ShouldBeLessThan(TimeSpan.FromSeconds(6));
        }

        (await jobs.Get<JobClaims>().LoadAsync(id, Now)).State.ShouldBe(JobState.Queued);
        using var next = await StartWorkerAsync();
        var job = await jobs.EndOfAsync(id);

        job.State.ShouldBe(JobState.Succeeded, job.ErrorMessage);
        (job.Attempt, job.LostLeases).ShouldBe((2, 0));
        (await jobs.StepsOfAsync(id)).ShouldBe(Enumerable.Range(1, 40)); // no step twice, none missing
        await next.StopAsync(Now);
    }

    [Fact]
    public async Task Pause_RunningJob_RestsUntilItIsResumedAndMissesNoStep()
    {
        using var jobs = await TestJobs.OnAsync(database);
        using var worker = await StartWorkerAsync();
        var id = await jobs.QueueAsync("long");
        await jobs.StepOfAsync(id, 3);
        var trainer = await TrainerOfAsync(await jobs.UntilAsync(id, job => job.RunAttempt > 0));

        (await jobs.Get<JobStore>().PauseAsync(Tenancy.DefaultProject, id, Now))!.Value.Accepted.ShouldBeTrue();
        var paused = await jobs.UntilAsync(id, job => job.State is JobState.Paused);
        TestJobs.IsAlive(trainer).ShouldBeFalse();
        (paused.DesiredState, paused.LeaseOwner).ShouldBe((null, null));

        await Task.Delay(TimeSpan.FromSeconds(3), Now); // longer than a lease and a sweep
        (await jobs.Get<JobClaims>().LoadAsync(id, Now)).State.ShouldBe(JobState.Paused);
        (await jobs.Get<JobStore>().ResumeAsync(Tenancy.DefaultProject, id, Now))!.Value.Accepted.ShouldBeTrue();
        jobs.Get<JobAlarms>().EnqueueTraining();
        var job = await jobs.EndOfAsync(id);

        job.State.ShouldBe(JobState.Succeeded, job.ErrorMessage);
        (job.Attempt, job.LostLeases).ShouldBe((2, 0));
        (await jobs.StepsOfAsync(id)).ShouldBe(Enumerable.Range(1, 120));
        await worker.StopAsync(Now);
    }

    [Fact]
    public async Task Pause_QueuedJob_IsPassedOverAndCanBeCancelled()
    {
        using var jobs = await TestJobs.OnAsync(database);
        var id = await jobs.QueueAsync("quick", ring: false);
        var store = jobs.Get<JobStore>();
        (await store.PauseAsync(Tenancy.DefaultProject, id, Now))!.Value.Job.State.ShouldBe(JobState.Paused);
        var other = await jobs.QueueAsync("quick");

        using var worker = await StartWorkerAsync();
        (await jobs.EndOfAsync(other)).State.ShouldBe(JobState.Succeeded);

        (await jobs.Get<JobClaims>().LoadAsync(id, Now)).State.ShouldBe(JobState.Paused);
        (await store.CancelAsync(Tenancy.DefaultProject, id, Now))!.Value.Job.State.ShouldBe(JobState.Cancelled);
        await worker.StopAsync(Now);
    }

    [Fact]
    public async Task Run_FileDeletedMeanwhile_FailsNamingIt()
    {
        using var jobs = await TestJobs.OnAsync(database);
        var id = await jobs.QueueAsync("quick", ring: false);
        var file = (await jobs.Get<JobClaims>().LoadAsync(id, Now)).TrainingFile;
        await jobs.Get<PeftServer.Core.Files.FileStore>().DeleteAsync(Tenancy.DefaultProject, file, Now);

        using var worker = await StartWorkerAsync();
        var job = await jobs.EndOfAsync(id); // the alarm never rang: the sweep does it

        (job.ErrorCode, job.ErrorParam).ShouldBe(("deleted_training_file", "training_file"));
        await worker.StopAsync(Now);
    }

    private Task<IHost> StartWorkerAsync() => database.StartHostAsync(builder => builder.AddPeftWorker(), TestJobs.WorkerSettings);

    private async Task<int> TrainerOfAsync(FineTuningJob job)
    {
        var note = Path.Combine(database.Folder, "runs", job.Id, $"{job.RunAttempt}", "trainer.pid");
        while (!File.Exists(note) || new FileInfo(note).Length == 0)
        {
            await Task.Delay(20, Now);
        }

        return TestJobs.TrainerOf(database, job);
    }
}
