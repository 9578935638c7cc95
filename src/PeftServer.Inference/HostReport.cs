using Microsoft.AspNetCore.Hosting.Server;
using Microsoft.AspNetCore.Hosting.Server.Features;
using Microsoft.AspNetCore.Http.Features;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;
using PeftServer.Core.Inference;

namespace PeftServer.Inference;

/// <summary>Tells the database every two seconds that this host lives, how busy it is and which bases it holds.</summary>
internal sealed partial class HostReport(
    IServer server, InferenceHosts hosts, ServedModels models, IHostApplicationLifetime lifetime, IOptions<InferenceHostOptions> options, ILogger<HostReport> logger)
    : BackgroundService
{
    private readonly string _id = $"{Environment.MachineName}-{Environment.ProcessId}-{Guid.NewGuid():N}";

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        await Started(stoppingToken);
        var url = options.Value.AdvertisedUrl ?? server.Features.GetRequiredFeature<IServerAddressesFeature>().Addresses.First();
        using var timer = new PeriodicTimer(InferenceHosts.Heartbeat);
        var reachable = true;
        try
        {
            do
            {
                try
                {
                    models.DropIdle();
                    await hosts.ReportAsync(_id, url, InferenceState.Ready, models.Load, models.States(), stoppingToken);
                    reachable = true;
                }
                catch (Exception e) when (e is not OperationCanceledException)
                {
                    // Answers go on without the database; only the first failure of a row is news.
                    if (reachable)
                    {
                        LogUnreachable(e);
                    }

                    reachable = false;
                }
            }
            while (await timer.WaitForNextTickAsync(stoppingToken));
        }
        catch (OperationCanceledException)
        {
            await LeaveAsync();
        }
    }

    private async Task LeaveAsync()
    {
        try
        {
            using var limit = new CancellationTokenSource(TimeSpan.FromSeconds(2));
            await hosts.RemoveAsync(_id, limit.Token);
        }
        catch (Exception e) when (e is not OutOfMemoryException)
        {
            LogUnreachable(e); // a host that cannot say goodbye is found silent
        }
    }

    private async Task Started(CancellationToken stoppingToken)
    {
        var started = new TaskCompletionSource();
        await using var onStart = lifetime.ApplicationStarted.Register(() => started.TrySetResult());
        await using var onStop = stoppingToken.Register(() => started.TrySetCanceled(stoppingToken));
        await started.Task;
    }

    [LoggerMessage(Level = LogLevel.Warning, Message = "The database does not take this host's report; trying again every two seconds.")]
    private partial void LogUnreachable(Exception exception);
}
