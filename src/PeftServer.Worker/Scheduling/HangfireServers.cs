using Hangfire;
using Hangfire.Common;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using PeftServer.Core.Jobs;
using PeftServer.Worker.Devices;

namespace PeftServer.Worker.Scheduling;

/// <summary>Hangfire's two servers in this process: as many trainings as there are devices, and one validation beside them.</summary>
internal sealed class HangfireServers(IServiceProvider services, JobStorage storage, TrainingDevices devices) : IHostedService
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(4);
    private readonly List<BackgroundJobServer> _servers = [];

    public Task StartAsync(CancellationToken cancellationToken)
    {
        _servers.Add(Start(JobAlarms.Train, devices.Count));
        _servers.Add(Start(JobAlarms.Validate, workers: 1));
        return Task.CompletedTask;
    }

    public async Task StopAsync(CancellationToken cancellationToken)
    {
        _servers.ForEach(server => server.SendStop());
        await Task.WhenAll(_servers.Select(server => server.WaitForShutdownAsync(cancellationToken)));
        _servers.ForEach(server => server.Dispose());
    }

    private BackgroundJobServer Start(string queue, int workers) => new(
        new BackgroundJobServerOptions
        {
            ServerName = queue == JobAlarms.Train ? $"{Environment.MachineName}:{queue} ({devices.Description})" : $"{Environment.MachineName}:{queue}", // what the dashboard lists
            Queues = [queue],
            WorkerCount = workers,
            Activator = new ServiceActivator(services),
            FilterProvider = new JobFilterProviderCollection(new JobFilterAttributeFilterProvider(), new Filters()),
            ShutdownTimeout = Patience,
            StopTimeout = Patience,
        },
        storage);

    private sealed class ServiceActivator(IServiceProvider services) : JobActivator
    {
        public override object ActivateJob(Type jobType) => services.GetRequiredService(jobType);
    }

    private sealed class Filters : IJobFilterProvider
    {
        public IEnumerable<JobFilter> GetFilters(Job job) => [new JobFilter(new TruthfulStates(), JobFilterScope.Global, order: null)];
    }
}
