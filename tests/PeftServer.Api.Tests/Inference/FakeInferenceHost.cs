using System.Net;
using System.Text;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Hosting.Server;
using Microsoft.AspNetCore.Hosting.Server.Features;
using Microsoft.Extensions.Logging;
using PeftServer.Core;
using PeftServer.Core.Inference;

namespace PeftServer.Api.Tests.Inference;

/// <summary>An inference host as the api sees one: it keeps what it was sent, and answers when the test says so.</summary>
internal sealed class FakeInferenceHost : IAsyncDisposable
{
    private readonly WebApplication _app;

    private FakeInferenceHost(WebApplication app) => _app = app;

    public string Body { get; private set; } = "";

    public Dictionary<string, string> Headers { get; } = new(StringComparer.OrdinalIgnoreCase);

    public string Path { get; private set; } = "";

    /// <summary>Released once for each chunk of a stream.</summary>
    public SemaphoreSlim Chunks { get; } = new(0);

    public TaskCompletionSource ClientLeft { get; } = new(TaskCreationOptions.RunContinuationsAsynchronously);

    public string Url => _app.Services.GetRequiredService<IServer>().Features.Get<IServerAddressesFeature>()!.Addresses.First();

    public static async Task<FakeInferenceHost> StartAsync(ApiServer api, string id = "one", int load = 0)
    {
        var builder = WebApplication.CreateBuilder();
        builder.Logging.ClearProviders();
        builder.WebHost.ConfigureKestrel(kestrel => kestrel.Listen(IPAddress.Loopback, 0));
        var host = new FakeInferenceHost(builder.Build());
        host._app.Run(host.AnswerAsync);
        await host._app.StartAsync();
        await RegisterAsync(api, id, host.Url, load);
        return host;
    }

    public static Task RegisterAsync(ApiServer api, string id, string url, int load) =>
        api.Services.GetRequiredService<InferenceHosts>().ReportAsync(
            id, url, InferenceState.Ready, load, new Dictionary<string, InferenceState> { ["tiny-llama"] = InferenceState.Ready }, CancellationToken.None);

    public async ValueTask DisposeAsync()
    {
        using var now = new CancellationTokenSource(TimeSpan.FromMilliseconds(100));
        await _app.StopAsync(now.Token);
        await _app.DisposeAsync();
        Chunks.Dispose();
    }

    private async Task AnswerAsync(HttpContext context)
    {
        using var reader = new StreamReader(context.Request.Body, Encoding.UTF8);
        Body = await reader.ReadToEndAsync();
        Path = context.Request.Path;
        foreach (var (name, value) in context.Request.Headers)
        {
            Headers[name] = value.ToString();
        }

        if (!Body.Contains("\"stream\": true", StringComparison.Ordinal))
        {
            context.Response.Headers["x-from"] = PublicId.Random(3);
            await context.Response.WriteAsync("""{"object":"chat.completion","id":"chatcmpl-1"}""");
            return;
        }

        try
        {
            context.Response.ContentType = "text/event-stream";
            for (var chunk = 1; ; chunk++)
            {
                await Chunks.WaitAsync(context.RequestAborted);
                await context.Response.WriteAsync($"data: {chunk}\n\n", context.RequestAborted);
                await context.Response.Body.FlushAsync(context.RequestAborted);
            }
        }
        catch (OperationCanceledException)
        {
            ClientLeft.TrySetResult();
        }
    }
}
