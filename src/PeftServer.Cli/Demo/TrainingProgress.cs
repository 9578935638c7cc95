using System.Globalization;
using PeftServer.Cli.Client;
using Spectre.Console;

namespace PeftServer.Cli.Demo;

/// <summary>Shows a job's events as they come: a bar on a terminal, a line every few seconds elsewhere.</summary>
internal sealed class TrainingProgress(IAnsiConsole console)
{
    private static readonly TimeSpan BetweenLines = TimeSpan.FromSeconds(5);

    /// <summary>The newest speed told, in tokens a second.</summary>
    public double? TokensPerSecond { get; private set; }

    /// <summary>Steps of the whole job, once they are known.</summary>
    public int TotalSteps { get; private set; }

    public Task ShowAsync(IAsyncEnumerable<ServerEvent> events) =>
        console.Profile.Out.IsTerminal ? ShowBarAsync(events) : WriteLinesAsync(events);

    private Task ShowBarAsync(IAsyncEnumerable<ServerEvent> events) =>
        console.Progress()
            .Columns(new ProgressBarColumn { Width = 24 }, new TaskDescriptionColumn { Alignment = Justify.Left })
            .StartAsync(async display =>
            {
                var bar = display.AddTask("waiting for the worker", maxValue: 1);
                await foreach (var item in events)
                {
                    if (Line(item) is not { } line)
                    {
                        console.WriteLine(item.Message);
                        continue;
                    }
                    bar.MaxValue = TotalSteps;
                    bar.Value = item.Metric("step")!.Value;
                    bar.Description = Markup.Escape(line);
                }
            });

    private async Task WriteLinesAsync(IAsyncEnumerable<ServerEvent> events)
    {
        var clock = TimeProvider.System;
        var written = 0L;
        await foreach (var item in events)
        {
            var line = Line(item);
            var isLast = line is not null && item.Metric("step") == TotalSteps;
            if (line is null || isLast || written == 0 || clock.GetElapsedTime(written) >= BetweenLines)
            {
                console.WriteLine(line ?? item.Message);
                written = line is null ? written : clock.GetTimestamp();
            }
        }
    }

    /// <summary>The metrics of a training step, or null for any other event.</summary>
    private string? Line(ServerEvent item)
    {
        if (item.Type != "metrics" || item.Metric("step") is not { } step || item.Metric("train_loss") is not { } loss)
        {
            return null;
        }
        TotalSteps = (int)(item.Metric("total_steps") ?? step);
        TokensPerSecond = item.Metric("tokens_per_second") ?? TokensPerSecond;
        var eta = TimeSpan.FromSeconds(item.Metric("eta_seconds") ?? 0);
        return string.Create(
            CultureInfo.InvariantCulture,
            $"step {step}/{TotalSteps}  loss {loss:0.000}  lr {item.Metric("learning_rate"):0.0e-0}  {TokensPerSecond:0} tokens/s  ETA {eta:m\\:ss}");
    }
}
