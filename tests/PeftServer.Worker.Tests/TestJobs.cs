using System.Text;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using PeftServer.Core.Data;
using PeftServer.Core.Files;
using PeftServer.Core.Jobs;
using PeftServer.Core.Storage;
using PeftServer.Testing;

namespace PeftServer.Worker.Tests;

/// <summary>A world for the fake trainer: a base model's folder, jobs whose training file says what happens, and a look at them.</summary>
internal sealed class TestJobs : IDisposable
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(60);
    private readonly IHost _host;

    private TestJobs(IHost host) => _host = host;

    private static CancellationToken Now => TestContext.Current.CancellationToken;

    /// <summary>Settings of a worker with short leases and the fake trainer.</summary>
    public static (string Key, string? Value)[] WorkerSettings =>
    [
        ("Worker:Devices", "cpu"),
        ("Worker:LeaseSeconds", "2"),
        ("Worker:SweepSeconds", "1"),
        ("Worker:TrainerCommand:0", "/bin/bash"),
        ("Worker:TrainerCommand:1", Path.Combine(AppContext.BaseDirectory, "fake-trainer.sh")),
    ];

    public static async Task<TestJobs> OnAsync(TestDatabase database)
    {
        var model = Directory.CreateDirectory(Path.Combine(database.Folder, "models", "tiny-llama")).FullName;
        foreach (var file in Directory.GetFiles(Path.Combine(AppContext.BaseDirectory, "tiny-llama")))
        {
            File.Copy(file, Path.Combine(model, Path.GetFileName(file)), overwrite: true);
        }

        return new TestJobs(await database.StartHostAsync());
    }

    public T Get<T>()
        where T : notnull => _host.Services.GetRequiredService<T>();

    /// <summary>A job that waits to be trained; its alarm rings when <paramref name="ring"/> says so, or a sweep does it.</summary>
    public async Task<string> QueueAsync(string script, bool ring = true)
    {
        using var content = new MemoryStream(Encoding.UTF8.GetBytes($"{{\"script\": \"{script}\"}}\n"));
        var blob = await Get<IArtifactStore>().PutAsync(content, 1 << 20, Now);
        var file = await Get<FileStore>().AddAsync(
            new StoredFile { Filename = "train.jsonl", Purpose = "fine-tune", Bytes = blob.Bytes, Sha256 = blob.Sha256 }, Now);
        var job = await Get<JobStore>().CreateAsync(TestDatabase.NewJob(file.Id), Now);
        var lease = await Get<JobClaims>().ClaimValidationAsync(job.Id, "test", TimeSpan.FromSeconds(30), Now);
        await Get<JobWriter>().WriteAsync(lease!, transaction => transaction.Queue(), Now);
        if (ring)
        {
            Get<JobAlarms>().EnqueueTraining();
        }

        return job.Id;
    }

    public async Task<FineTuningJob> UntilAsync(string jobId, Func<FineTuningJob, bool> reached)
    {
        using var subscription = Get<JobSignals>().Subscribe(jobId);
        using var timeout = CancellationTokenSource.CreateLinkedTokenSource(Now);
        timeout.CancelAfter(Patience);
        FineTuningJob? job = null;
        while (true)
        {
            try
            {
                job = await Get<JobClaims>().LoadAsync(jobId, timeout.Token);
                if (reached(job))
                {
                    return job;
                }

                await subscription.WaitAsync(timeout.Token);
            }
            catch (OperationCanceledException) when (!Now.IsCancellationRequested)
            {
                Assert.Fail($"The job is still {job?.State}, attempt {job?.Attempt}, progress {job?.Progress}, error {job?.Error}.");
            }
            catch (Exception e) when (DatabaseFaults.IsPassing(e))
            {
                await Task.Delay(100, timeout.Token);
            }
        }
    }

    public Task<FineTuningJob> EndOfAsync(string jobId) => UntilAsync(jobId, job => job.State.IsFinal);

    public Task<FineTuningJob> StepOfAsync(string jobId, int step) =>
        UntilAsync(jobId, job => job.Progress is { } progress && progress.GetProperty("step").GetInt32() >= step);

    public async Task<IReadOnlyList<JobEvent>> EventsOfAsync(string jobId) =>
        await Get<JobStore>().EventsAfterAsync(jobId, 0, 10_000, Now);

    public async Task<IReadOnlyList<int>> StepsOfAsync(string jobId) =>
        [.. (await EventsOfAsync(jobId)).Where(row => row.Type is JobEventType.Metrics).Select(row => row.Data!.Value.GetProperty("step").GetInt32())];

    public async Task<(int Models, int Adapters)> PublishedAsync(string jobId)
    {
        await using var db = await Get<IDbContextFactory<PeftDbContext>>().CreateDbContextAsync(Now);
        return (await db.Models.CountAsync(model => model.JobId == jobId, Now), await db.Adapters.CountAsync(Now));
    }

    /// <summary>The process of the job's newest run, as the worker noted it.</summary>
    public static int TrainerOf(TestDatabase database, FineTuningJob job) => int.Parse(
        File.ReadAllText(Path.Combine(database.Folder, "runs", job.Id, $"{job.RunAttempt}", "trainer.pid")).Split(' ')[0],
        System.Globalization.CultureInfo.InvariantCulture);

    public static bool IsAlive(int processId) => Directory.Exists($"/proc/{processId}") && !IsZombie(processId);

    public void Dispose() => _host.Dispose();

    private static bool IsZombie(int processId)
    {
        try
        {
            var stat = File.ReadAllText($"/proc/{processId}/stat");
            return stat[stat.LastIndexOf(')') + 2] == 'Z';
        }
        catch (IOException)
        {
            return true;
        }
    }
}
