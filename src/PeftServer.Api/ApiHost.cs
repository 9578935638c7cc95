using Hangfire;
using PeftServer.Api.Documentation;
using PeftServer.Api.Files;
using PeftServer.Api.FineTuning;
using PeftServer.Api.Health;
using PeftServer.Api.Inference;
using PeftServer.Api.Models;
using PeftServer.Api.Security;
using PeftServer.Core;
using PeftServer.Core.Hosting;
using PeftServer.Core.Http;
using PeftServer.Engine;
using Serilog;
using Serilog.Events;

namespace PeftServer.Api;

/// <summary>The api process: OpenAI's HTTP API in front of the rows and the artifact store. It loads no libtorch.</summary>
public static class ApiHost
{
    /// <summary>
    /// The host, not yet started; <paramref name="args"/> are settings of the form <c>--Api:Url=http://127.0.0.1:8080</c>.
    /// Throws <see cref="InvalidOperationException"/> when it would be open to other machines without a key.
    /// </summary>
    public static WebApplication Build(string[] args, Action<WebApplicationBuilder>? configure = null)
    {
        var builder = WebApplication.CreateBuilder(new WebApplicationOptions { Args = args, ContentRootPath = AppContext.BaseDirectory });
        configure?.Invoke(builder);
        builder.AddPeftCore();
        builder.AddPeftLogging("api");
        builder.AddApi();

        var app = builder.Build();
        app.UseRequestIds(app.Services.GetRequiredService<TimeProvider>());
        app.UseSerilogRequestLogging(logging => logging.GetLevel = LevelOf);
        app.UseApiErrors();
        app.UseHostGuard();
        app.UseApiDocumentation();
        app.UseRouting();
        app.UseListeners();
        app.UseCors(); // before the key: a preflight carries none
        app.UseAuthentication();
        app.UseAuthorization();

        app.MapFiles();
        app.MapFineTuning();
        app.MapModels();
        app.MapInference();
        app.MapHealth();
        app.MapPages();
        return app;
    }

    /// <summary>Runs the host until <paramref name="cancellationToken"/> or a signal ends it.</summary>
    public static async Task RunAsync(string[] args, CancellationToken cancellationToken)
    {
        await using var app = Build(args);
        await app.StartAsync(cancellationToken);
        await app.WaitForShutdownAsync(cancellationToken);
    }

    extension(WebApplicationBuilder builder)
    {
        private void AddApi()
        {
            var options = builder.Configuration.GetSection(ApiOptions.Section).Get<ApiOptions>() ?? new();
            builder.Services.AddOptions<ApiOptions>().BindConfiguration(ApiOptions.Section).ValidateDataAnnotations().ValidateOnStart();
            builder.Services.Configure<HostOptions>(host => host.ShutdownTimeout = TimeSpan.FromSeconds(5)); // what still streams then is cut
            builder.Services.ConfigureHttpJsonOptions(json => PeftJson.Configure(json.SerializerOptions));
            builder.Services.AddHangfire(_ => { }); // the dashboard's parts; the storage is Core's
            builder.Services.AddHttpForwarder();
            builder.Services.AddSingleton(new JsonBodyLimit(options.MaxRequestBytes));
            builder.Services.AddSingleton<InferenceForwarder>();
            builder.Services.AddSingleton<JobPresenter>();
            builder.Services.AddCors(cors => cors.AddDefaultPolicy(policy => policy
                .WithOrigins(options.CorsOrigins).AllowAnyHeader().AllowAnyMethod()
                .WithExposedHeaders("x-request-id", "openai-processing-ms", "retry-after")));
            builder.AddKeyPolicy();
            builder.AddListeners(options, builder.Configuration[$"{AuthOptions.Section}:{nameof(AuthOptions.ApiKey)}"]);
            builder.AddApiDocumentation();
        }
    }

    extension(WebApplication app)
    {
        private void MapPages()
        {
            app.MapGet("/", (HttpContext context) => Results.Redirect(context.IsAdmin ? "/hangfire" : "/swagger"))
                .AllowAnonymous().OnBothListeners().ExcludeFromDescription();
            // The key policy guards it as it guards everything; Hangfire's own filter would only ask whether the caller is local.
            app.MapHangfireDashboard("/hangfire", new DashboardOptions { Authorization = [], AppPath = null, DisplayStorageConnectionString = false })
                .OnAdminListener();
        }
    }

    // A probe every few seconds is no news.
    private static LogEventLevel LevelOf(HttpContext context, double elapsed, Exception? exception) =>
        exception is not null || context.Response.StatusCode >= 500 ? LogEventLevel.Error
        : context.Request.Path.Value is "/healthz" or "/readyz" ? LogEventLevel.Debug
        : LogEventLevel.Information;
}
