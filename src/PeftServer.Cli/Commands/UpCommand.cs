using System.CommandLine;
using PeftServer.Cli.Up;

namespace PeftServer.Cli.Commands;

/// <summary><c>peftserver up</c></summary>
internal static class UpCommand
{
    private const string Description = """
        Start everything on this machine: a private PostgreSQL, api, worker and inference.

        Everything listens on 127.0.0.1. Ctrl-C stops all of it within 10 s; the data directory keeps files, jobs,
        adapters and logs for the next start.

          peftserver up
          peftserver up --data /srv/peft --port 9000
          peftserver up --set Worker:Devices=cpu --set Models:Root=/srv/models
        """;

    public static Command Create()
    {
        var data = HostOptions.Data();
        var port = HostOptions.Port("Port of the api. Default: 8080.");
        var adminPort = HostOptions.AdminPort();
        var set = HostOptions.Set();
        var command = new Command("up", Description) { data, port, adminPort, set };
        command.SetAction(async (result, stopping) =>
        {
            var options = new UpOptions(
                DataDirectory.Resolve(result.GetValue(data)), result.GetValue(port) ?? UpOptions.DefaultPort, result.GetValue(adminPort), Settings.Parse(result.GetValue(set)!));
            var status = new StatusLines(Console.Out, Console.Error);
            await using var server = await LocalServer.StartAsync(options, status, stopping);
            if (server is null)
            {
                return ExitCode.Done;
            }
            status.Line("ready", "Ctrl-C stops everything");
            await LocalServer.RunAsync(stopping);
            return ExitCode.Done;
        });
        return command;
    }
}
