using Microsoft.Extensions.Hosting;
using Serilog;
using Serilog.Formatting.Compact;

namespace PeftServer.Core.Hosting;

public static class PeftLogging
{
    extension(IHostApplicationBuilder builder)
    {
        /// <summary>Compact JSON, a line an event, to standard output; levels in section <c>Serilog</c>.</summary>
        public void AddPeftLogging(string process) => builder.Services.AddSerilog((_, logger) => logger
            .ReadFrom.Configuration(builder.Configuration)
            .Enrich.FromLogContext()
            .Enrich.WithProperty("Process", process)
            .WriteTo.Console(new RenderedCompactJsonFormatter()));
    }
}
