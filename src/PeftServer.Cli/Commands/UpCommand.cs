using System.CommandLine;
using PeftServer.Cli.Up;
using PeftServer.Core.Hosting;

namespace PeftServer.Cli.Commands;

/// <summary><c>peftserver up</c></summary>
internal static class UpCommand
{
    private const string Lesson = """
        Examples:
          peftserver up
          peftserver up --data /srv/peft --port 9000
          peftserver up --set Worker:Devices=cpu --set Models:Root=/srv/models

        Everything listens on 127.0.0.1. The data directory keeps the database, files, adapters, models and logs for the
        next start. Ctrl-C stops everything within 10 s, and so does the end of this process, however it ends.
        """;

    public static Command Create()
    {
        var data = HostOptions.Data();
        var port = HostOptions.Port();
        var adminPort = HostOptions.AdminPort();
        var set = HostOptions.Set();
        var command = new DescribedCommand(
            "up", "Start everything on this machine: a private PostgreSQL, api, worker, inference.", Lesson)
        {
            data,
            port,
            adminPort,
            set,
        };
        command.SetAction(async (result, stopping) =>
        {
            var options = new UpOptions(
                DataFolder.Of(result.GetValue(data)), result.GetValue(port), result.GetValue(adminPort), Settings.Parse(result.GetValue(set)!));
            var status = new StatusLines(Console.Out, Console.Error);
            try
            {
                await using var server = await LocalServer.StartAsync(options, status, stopping);
                status.Line("ready", $"after {server.StartTime.TotalSeconds:0.0} s; Ctrl-C stops everything");
                await Task.Delay(Timeout.InfiniteTimeSpan, stopping);
            }
            catch (OperationCanceledException) when (stopping.IsCancellationRequested)
            {
                status.Line("stopped", "");
            }
            return ExitCode.Done;
        });
        return command;
    }
}
