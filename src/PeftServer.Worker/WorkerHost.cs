using Microsoft.Extensions.Hosting;
using PeftServer.Core;
using PeftServer.Core.Hosting;

namespace PeftServer.Worker;

/// <summary>The worker process: no tensors, no HTTP. One a host.</summary>
public static class WorkerHost
{
    /// <summary>
    /// Runs until SIGINT, SIGTERM or the token; then trainers are stopped and their jobs handed back within five seconds.
    /// <paramref name="args"/> are settings, <c>--Section:Key=value</c>.
    /// </summary>
    public static async Task RunAsync(string[] args, CancellationToken cancellationToken)
    {
        var builder = Host.CreateApplicationBuilder(new HostApplicationBuilderSettings
        {
            Args = args,
            ContentRootPath = AppContext.BaseDirectory,
        });
        builder.AddPeftLogging("worker");
        builder.AddPeftCore();
        builder.AddPeftWorker();
        using var host = builder.Build();
        await host.RunAsync(cancellationToken);
    }
}
