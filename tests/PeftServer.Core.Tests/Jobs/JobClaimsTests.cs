using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using PeftServer.Core.Jobs;
using PeftServer.Testing;

namespace PeftServer.Core.Tests.Jobs;

public sealed class JobClaimsTests(TestDatabase database) : IClassFixture<TestDatabase>
{
    private static readonly WorkerCapacity OneDevice = new(Devices: 1, MemoryBytes: null, RunStore: "runs-1");
    private static readonly TimeSpan Lease = TimeSpan.FromSeconds(30);
    private static CancellationToken Now => TestContext.Current.CancellationToken;

    [Fact]
    public async Task ClaimNext_ManyWorkers_EachJobGoesToOne()
    {
        using var host = await StartAsync();
        var jobs = await QueueAsync(host, 5);

        var claims = await Task.WhenAll(Enumerable.Range(0, 20).Select(worker =>
            host.Claims.ClaimNextAsync($"worker-{worker}", OneDevice, Lease, Now)));

        claims.OfType<JobLease>().Select(lease => lease.JobId).ShouldBe(jobs, ignoreOrder: true);
        claims.OfType<JobLease>().ShouldAllBe(lease => lease.Epoch == 2); // validation took the first
    }

    private async Task<Fixture> StartAsync() => new(await database.StartHostAsync());

    private static async Task<IReadOnlyList<string>> QueueAsync(Fixture host, int count)
    {
        var ids = new List<string>();
        for (var i = 0; i < count; i++)
        {
            var job = await host.Jobs.CreateAsync(TestDatabase.NewJob(), Now);
            var lease = await host.Claims.ClaimValidationAsync(job.Id, "validator", Lease, Now);
            await host.Writer.WriteAsync(lease!, transaction => transaction.Queue(), Now);
            ids.Add(job.Id);
        }

        return ids;
    }

    private sealed class Fixture(IHost host) : IDisposable
    {
        public JobStore Jobs => host.Services.GetRequiredService<JobStore>();

        public JobClaims Claims => host.Services.GetRequiredService<JobClaims>();

        public JobWriter Writer => host.Services.GetRequiredService<JobWriter>();

        public void Dispose() => host.Dispose();
    }
}
