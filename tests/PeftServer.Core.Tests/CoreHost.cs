using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using PeftServer.Core.Data;
using PeftServer.Core.Jobs;
using PeftServer.Core.Storage;
using PeftServer.Testing;

namespace PeftServer.Core.Tests;

/// <summary>A host on the test's database, and the steps that many tests begin with.</summary>
internal sealed class CoreHost : IDisposable
{
    public static readonly TimeSpan Lease = TimeSpan.FromSeconds(30);

    /// <summary>A lease that has expired as soon as it is given.</summary>
    public static readonly TimeSpan Expired = TimeSpan.FromMilliseconds(-1);

    public static readonly WorkerCapacity OneDevice = new(Devices: 1, MemoryBytes: null);

    private readonly IHost _host;

    private CoreHost(IHost host) => _host = host;

    private static CancellationToken Now => TestContext.Current.CancellationToken;

    public JobStore Jobs => Get<JobStore>();

    public JobClaims Claims => Get<JobClaims>();

    public JobWriter Writer => Get<JobWriter>();

    public static async Task<CoreHost> OnAsync(TestDatabase database) => new(await database.StartHostAsync());

    public T Get<T>()
        where T : notnull => _host.Services.GetRequiredService<T>();

    public Task<PeftDbContext> DbAsync() => Get<IDbContextFactory<PeftDbContext>>().CreateDbContextAsync(Now);

    public async Task<string> QueueAsync(FineTuningJob? job = null)
    {
        var created = await Jobs.CreateAsync(job ?? TestDatabase.NewJob(), Now);
        var lease = await Claims.ClaimValidationAsync(created.Id, "validator", Lease, Now);
        await Writer.WriteAsync(lease!, transaction => transaction.Queue(), Now);
        return created.Id;
    }

    /// <summary>Takes what other tests of the class left waiting, for a test that says what comes next.</summary>
    public async Task EmptyQueueAsync()
    {
        while (await Claims.ClaimNextAsync("other", new WorkerCapacity(int.MaxValue, null), Lease, Now) is not null)
        {
        }
    }

    /// <summary>A job that runs on <paramref name="owner"/>, for as long as <paramref name="lease"/> says.</summary>
    public async Task<JobLease> RunAsync(TimeSpan? lease = null, string owner = "worker")
    {
        var id = await QueueAsync();
        return await ClaimAsync(id, lease, owner);
    }

    /// <summary>
    /// Claims until <paramref name="jobId"/> comes: other tests' jobs may wait in the same database. Only the one that was asked for gets
    /// <paramref name="lease"/>; an expired one on the others would have them swept as well.
    /// </summary>
    public async Task<JobLease> ClaimAsync(string jobId, TimeSpan? lease = null, string owner = "worker")
    {
        JobLease claim;
        do
        {
            claim = await Claims.ClaimNextAsync(owner, OneDevice, Lease, Now) ?? throw new InvalidOperationException($"{jobId} does not wait.");
        }
        while (claim.JobId != jobId);

        if (lease is { } asked)
        {
            await Claims.RenewAsync(claim, asked, Now);
        }

        return claim;
    }

    public Task<FineTuningJob> LoadAsync(string jobId) => Claims.LoadAsync(jobId, Now);

    public async Task<IReadOnlyList<JobEvent>> EventsOfAsync(string jobId) => await Jobs.EventsAfterAsync(jobId, 0, 10_000, Now);

    public static AdapterManifest Manifest(string content = "a") => new([new AdapterFile("adapter_model.safetensors", Sha(content), 1)]);

    public static string Sha(string content) =>
        Convert.ToHexStringLower(System.Security.Cryptography.SHA256.HashData(System.Text.Encoding.UTF8.GetBytes(content)));

    public void Dispose() => _host.Dispose();
}
