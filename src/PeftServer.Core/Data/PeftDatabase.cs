using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Design;
using Microsoft.EntityFrameworkCore.Infrastructure;
using Microsoft.EntityFrameworkCore.Storage;
using Npgsql;

namespace PeftServer.Core.Data;

/// <summary>The database as a whole: how it is opened, and its schema.</summary>
public static class PeftDatabase
{
    /// <summary>The schema of Hangfire's tables, beside ours in <c>public</c>.</summary>
    public const string HangfireSchema = "hangfire";

    private static readonly TimeSpan IdleTransaction = TimeSpan.FromSeconds(15);

    /// <summary>
    /// Brings the schema up to date; several processes may call it at once, one works and the others wait. Throws
    /// <see cref="NpgsqlException"/> when there is no database.
    /// </summary>
    public static async Task MigrateAsync(string connectionString, CancellationToken cancellationToken)
    {
        await using var source = NpgsqlDataSource.Create(connectionString);
        await using var db = new PeftDbContext(Options(new DbContextOptionsBuilder<PeftDbContext>(), source).Options);
        await CreateAsync(db, cancellationToken);

        // EF's own lock ends with each migration's transaction, and whoever waited for it goes on with the list that it made before.
        await using var turn = await source.OpenConnectionAsync(cancellationToken);
        await using var take = new NpgsqlCommand("SELECT pg_advisory_lock(hashtext('peftserver migrations'))", turn) { CommandTimeout = 0 };
        await take.ExecuteNonQueryAsync(cancellationToken);
        await db.Database.MigrateAsync(cancellationToken);
        await Jobs.JobAlarms.InstallAsync(source, cancellationToken);
    } // the lock goes with the connection

    private static async Task CreateAsync(PeftDbContext db, CancellationToken cancellationToken)
    {
        var creator = db.GetService<IRelationalDatabaseCreator>();
        if (await creator.ExistsAsync(cancellationToken))
        {
            return;
        }

        try
        {
            await creator.CreateAsync(cancellationToken);
        }
        catch (PostgresException e) when (e.SqlState is PostgresErrorCodes.DuplicateDatabase or PostgresErrorCodes.UniqueViolation)
        {
            // Another process was first.
        }
    }

    /// <summary>Whether the database answers and its schema is this program's: null, or what is wrong and what to do.</summary>
    public static async Task<string?> FaultAsync(PeftDbContext db, CancellationToken cancellationToken)
    {
        try
        {
            var missing = (await db.Database.GetPendingMigrationsAsync(cancellationToken)).Count();
            return missing == 0 ? null : $"The database lacks {missing} migrations. Run `peftserver migrate`.";
        }
        catch (Exception e) when (e is NpgsqlException or InvalidOperationException)
        {
            return $"The database does not answer: {e.Message}";
        }
    }

    /// <summary>
    /// A pool of connections with what the hosts rely on. A process that stands still in the middle of a transaction (stopped,
    /// or cut off) loses it within half a lease, and with it the lock on a job that others want to take over. What the
    /// connection string sets in its Options wins.
    /// </summary>
    internal static NpgsqlDataSource Open(string connectionString)
    {
        var settings = new NpgsqlConnectionStringBuilder(connectionString);
        settings.ApplicationName ??= "peftserver";
        settings.Options = $"-c idle_in_transaction_session_timeout={IdleTransaction.TotalMilliseconds} {settings.Options}".Trim();
        if (!connectionString.Contains("Pool", StringComparison.OrdinalIgnoreCase))
        {
            settings.MaxPoolSize = 30; // three hosts fit a server with PostgreSQL's default of 100 connections
        }

        return NpgsqlDataSource.Create(settings.ConnectionString);
    }

    internal static T Options<T>(T options, NpgsqlDataSource source)
        where T : DbContextOptionsBuilder
    {
        options.UseNpgsql(source, npgsql => npgsql.MigrationsHistoryTable("migrations")).UseSnakeCaseNamingConvention();
        return options;
    }

    /// <summary>For <c>dotnet ef migrations add</c>, which never connects.</summary>
    internal sealed class DesignTime : IDesignTimeDbContextFactory<PeftDbContext>
    {
        public PeftDbContext CreateDbContext(string[] args) =>
            new(Options(new DbContextOptionsBuilder<PeftDbContext>(), NpgsqlDataSource.Create("Host=design-time")).Options);
    }
}
