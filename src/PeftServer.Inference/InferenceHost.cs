using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using PeftServer.Core;
using PeftServer.Core.Hosting;
using PeftServer.Core.Http;
using PeftServer.Engine;
using PeftServer.Engine.Native;
using PeftServer.Inference.Chat;
using PeftServer.Inference.Completions;
using PeftServer.Inference.Reading;
using PeftServer.Inference.Tokenizing;
using PeftServer.Inference.Writing;
using Serilog;

namespace PeftServer.Inference;

/// <summary>
/// The inference process: it owns a device, holds the bases that are asked for, and answers with any adapter on them. Only the api
/// talks to it, with the internal key.
/// </summary>
public static class InferenceHost
{
    /// <summary>The host, not yet started; <paramref name="args"/> are settings such as <c>--Inference:Url=http://127.0.0.1:0</c>.</summary>
    public static WebApplication Build(string[] args)
    {
        var builder = WebApplication.CreateBuilder(new WebApplicationOptions { Args = args, ContentRootPath = AppContext.BaseDirectory });
        builder.AddPeftCore();
        builder.AddPeftLogging("inference");
        builder.Services.AddOptions<InferenceHostOptions>().BindConfiguration(InferenceHostOptions.Section).ValidateDataAnnotations().ValidateOnStart();
        builder.Services.ConfigureHttpJsonOptions(json => PeftJson.Configure(json.SerializerOptions));
        builder.Services.Configure<HostOptions>(host => host.ShutdownTimeout = TimeSpan.FromSeconds(5));
        builder.Services.AddSingleton<ServedModels>();
        builder.Services.AddSingleton<RequestedModels>();
        builder.Services.AddSingleton<WritingServices>();
        builder.Services.AddSingleton<TokenizingModels>();
        builder.Services.AddSingleton<Readers>();
        builder.Services.AddSingleton<ReadingServices>();
        builder.Services.AddHostedService<HostReport>();
        builder.WebHost.UseUrls(builder.Configuration[$"{InferenceHostOptions.Section}:{nameof(InferenceHostOptions.Url)}"] ?? InferenceHostOptions.DefaultUrl);

        var app = builder.Build();
        app.UseSerilogRequestLogging();
        app.UseApiErrors();
        app.UseInternalKey();
        app.MapGet("/healthz", () => "ok");
        app.MapChat();
        app.MapCompletions();
        app.MapReading();
        app.MapTokenizing();
        return app;
    }

    /// <summary>Loads libtorch, then runs until <paramref name="cancellationToken"/> or a signal ends it.</summary>
    public static async Task RunAsync(string[] args, CancellationToken cancellationToken)
    {
        await using var app = Build(args);
        TorchLoader.Load(app.Configuration[$"{TorchOptions.Section}:{nameof(TorchOptions.LibraryPath)}"] is { Length: > 0 } folder ? folder : null);
        await app.StartAsync(cancellationToken);
        await app.WaitForShutdownAsync(cancellationToken);
    }
}
