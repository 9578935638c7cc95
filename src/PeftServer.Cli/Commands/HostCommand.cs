using System.CommandLine;
using PeftServer.Cli.Processes;
using PeftServer.Core.Hosting;

namespace PeftServer.Cli.Commands;

/// <summary>What <c>api</c>, <c>worker</c> and <c>inference</c> have in common: settings in, run until told to stop.</summary>
internal static class HostCommand
{
    public static Command Create(string name, string summary, string lesson, Func<string[], CancellationToken, Task> run)
    {
        var data = HostOptions.Data();
        var set = HostOptions.Set();
        var supervised = HostOptions.Supervised();
        var command = new DescribedCommand(name, summary, lesson) { data, set, supervised };
        command.SetAction(async (result, stopping) =>
        {
            var settings = new Dictionary<string, string?>(Settings.Parse(result.GetValue(set)!));
            if (result.GetValue(data) is { } folder)
            {
                settings[DataFolder.Key] = folder;
            }
            using var lifetime = SupervisedLifetime.Watch(result.GetValue(supervised), stopping);
            await run(Settings.ToArguments(settings), lifetime.Stopping);
            return ExitCode.Done;
        });
        return command;
    }
}
