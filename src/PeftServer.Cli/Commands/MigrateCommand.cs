using System.CommandLine;
using Npgsql;
using PeftServer.Core;
using PeftServer.Core.Data;

namespace PeftServer.Cli.Commands;

/// <summary><c>peftserver migrate</c></summary>
internal static class MigrateCommand
{
    private const string Lesson = """
        Examples:
          peftserver migrate --set "ConnectionStrings:Postgres=Host=db;Database=peftserver;Username=peftserver;Password=…"

        Creates the database where there is none. Safe to repeat, and while hosts run. `peftserver up` does it by itself.
        """;

    public static Command Create()
    {
        var set = HostOptions.Set();
        var command = new DescribedCommand("migrate", "Bring the database's schema up to date.", Lesson) { set };
        command.SetAction(async (result, stopping) =>
        {
            var connection = CoreServices.ConnectionString(Settings.Read(Settings.Parse(result.GetValue(set)!)));
            try
            {
                await PeftDatabase.MigrateAsync(connection, stopping);
            }
            catch (NpgsqlException error)
            {
                var address = new NpgsqlConnectionStringBuilder(connection);
                throw new CommandException(
                    $"The database {address.Database} at {address.Host}:{address.Port} cannot be migrated: {error.Message}", ExitCode.Environment, error);
            }
            Console.WriteLine("The schema is up to date.");
            return ExitCode.Done;
        });
        return command;
    }
}
