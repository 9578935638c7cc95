using System.Net.Sockets;
using Npgsql;

namespace PeftServer.Core.Data;

/// <summary>Which errors say "the database is away" and not "this can never work".</summary>
public static class DatabaseFaults
{
    // Classes of SQLSTATE: connection, rolled back by concurrency, resources, shutdown and start.
    private static readonly string[] PassingClasses = ["08", "40", "53", "55", "57"];

    /// <summary>Whether the same call may succeed later. EF wraps what Npgsql throws, so the causes are looked through.</summary>
    public static bool IsPassing(Exception exception)
    {
        for (var cause = exception; cause is not null; cause = cause.InnerException)
        {
            switch (cause)
            {
                case PostgresException answered:
                    return PassingClasses.Contains(answered.SqlState[..2]);
                case NpgsqlException or SocketException or EndOfStreamException or TimeoutException:
                    return true;
                default:
                    continue;
            }
        }

        return false;
    }
}
