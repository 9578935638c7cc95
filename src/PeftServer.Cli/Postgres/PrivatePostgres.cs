using Npgsql;
using PeftServer.Cli.Processes;
using PeftServer.Cli.Up;

namespace PeftServer.Cli.Postgres;

/// <summary>The running database of one data directory.</summary>
internal sealed class PrivatePostgres : IAsyncDisposable
{
    public const string WatcherCommand = "postgres-watcher";
    private const string Database = "peftserver";

    private readonly PostgresCluster _cluster;
    private readonly SupervisedProcess _watcher;
    private readonly int _port = Ports.Free();

    private PrivatePostgres(PostgresCluster cluster, DataDirectory data, StatusLines status)
    {
        _cluster = cluster;
        string[] user = cluster.User is null ? [] : ["--user", cluster.User.Name];
        var command = new ChildCommand(
            "postgres",
            [WatcherCommand, .. user, "--", .. cluster.ServerCommand(_port)],
            new Dictionary<string, string> { ["LC_ALL"] = "C" });
        _watcher = new SupervisedProcess(command, Path.Combine(data.Logs, "postgres.log"), status)
        {
            Prepare = cluster.EndStaleServerAsync,
            UntilReady = UntilReadyAsync,
            ReadyWithin = TimeSpan.FromMinutes(5), // recovery after a crash takes what it takes
        };
    }

    public string ConnectionString => _cluster.ConnectionString(_port, Database);

    /// <summary>For the status line.</summary>
    public string Description => $"127.0.0.1:{_port}, PostgreSQL {_cluster.Binaries.MajorVersion} in {_cluster.Record.Folder}";

    public static async Task<PrivatePostgres> StartAsync(
        DataDirectory data,
        string? binPath,
        StatusLines status,
        CancellationToken cancellationToken)
    {
        var cluster = await PostgresCluster.OpenAsync(data, binPath, cancellationToken);
        var postgres = new PrivatePostgres(cluster, data, status);
        try
        {
            await postgres._watcher.StartAsync(cancellationToken);
            return postgres;
        }
        catch
        {
            await postgres.DisposeAsync();
            throw;
        }
    }

    public Task StopAsync(TimeSpan grace) => _watcher.StopAsync(grace);

    public async ValueTask DisposeAsync()
    {
        await _watcher.StopAsync(TimeSpan.FromSeconds(6)); // the watcher kills the server after 5
        await _watcher.DisposeAsync();
        _cluster.Dispose();
    }

    private async Task UntilReadyAsync(CancellationToken cancellationToken)
    {
        while (true)
        {
            try
            {
                await using var connection = new NpgsqlConnection(_cluster.ConnectionString(_port, "postgres") + ";Pooling=false");
                await connection.OpenAsync(cancellationToken);
                await CreateDatabaseAsync(connection, cancellationToken);
                return;
            }
            catch (NpgsqlException error) when (error is not PostgresException { SqlState: not PostgresErrorCodes.CannotConnectNow })
            {
                await Task.Delay(50, cancellationToken);
            }
        }
    }

    private static async Task CreateDatabaseAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        await using var exists = new NpgsqlCommand("SELECT 1 FROM pg_database WHERE datname = @name", connection);
        exists.Parameters.AddWithValue("name", Database);
        if (await exists.ExecuteScalarAsync(cancellationToken) is null)
        {
            await using var create = new NpgsqlCommand($"CREATE DATABASE {Database}", connection);
            await create.ExecuteNonQueryAsync(cancellationToken);
        }
    }
}
