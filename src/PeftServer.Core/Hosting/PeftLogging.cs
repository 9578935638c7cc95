using Microsoft.Extensions.Hosting;
using Serilog;
using Serilog.Events;
using Serilog.Formatting.Compact;

namespace PeftServer.Core.Hosting;

public static class PeftLogging
{
    extension(IHostApplicationBuilder builder)
    {
        /// <summary>Compact JSON, a line an event, to standard output; levels in section <c>Serilog</c>.</summary>
        public void AddPeftLogging(string process) => builder.Services.AddSerilog((_, logger) => logger
            .MinimumLevel.Override("Hangfire", LogEventLevel.Warning)
            .MinimumLevel.Override("Microsoft.AspNetCore", LogEventLevel.Warning)
            .MinimumLevel.Override("Microsoft.EntityFrameworkCore", LogEventLevel.Warning)
            .MinimumLevel.Override("System.Net.Http", LogEventLevel.Warning)
            .ReadFrom.Configuration(builder.Configuration)
            .Enrich.FromLogContext()
            .Enrich.WithProperty("Process", process)
            .WriteTo.Console(new RenderedCompactJsonFormatter()));
    }
}
