using System.CommandLine;
using PeftServer.Cli.Postgres;
using PeftServer.Cli.Processes;

namespace PeftServer.Cli.Commands;

/// <summary><c>peftserver postgres-watcher</c>, started by <c>up</c> alone.</summary>
internal static class PostgresWatcherCommand
{
    public static Command Create()
    {
        var user = new Option<string?>("--user") { Description = "Account that runs the server." };
        var server = new Argument<string[]>("command") { Description = "The server and its arguments." };
        var command = new Command(PrivatePostgres.WatcherCommand, "Run a database server until standard input ends.")
        {
            user,
            server,
        };
        command.Hidden = true;
        command.SetAction(async (result, stopping) =>
        {
            using var lifetime = SupervisedLifetime.Watch(supervised: true, stopping);
            return await PostgresWatcher.RunAsync(result.GetValue(user), result.GetValue(server)!, lifetime.Stopping);
        });
        return command;
    }
}
