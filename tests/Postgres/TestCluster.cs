using System.Diagnostics;
using Npgsql;
using PeftServer.Core.Data;

[assembly: AssemblyFixture(typeof(PeftServer.Testing.TestCluster))]

namespace PeftServer.Testing;

/// <summary>
/// A PostgreSQL of these tests' own, on a socket in a temporary folder: no port, nothing left behind. With
/// PEFTSERVER_TEST_POSTGRES set, that server is used instead, and only the databases are ours.
/// </summary>
public sealed class TestCluster : IAsyncLifetime
{
    public const string Variable = "PEFTSERVER_TEST_POSTGRES";
    private const string Template = "peftserver_template";

    private readonly SemaphoreSlim _one = new(1);
    private string? _folder;
    private Process? _server;
    private string _admin = "";
    private string? _template;

    public async ValueTask InitializeAsync()
    {
        if (Environment.GetEnvironmentVariable(Variable) is { Length: > 0 } given)
        {
            _admin = given;
            return;
        }

        _folder = NewFolder();
        _admin = new NpgsqlConnectionStringBuilder { Host = _folder, Username = "peft", Database = "postgres" }.ConnectionString;
        Run("initdb", "-D", Data, "-U", "peft", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync");
        await StartAsync();
    }

    /// <summary>An empty database with the schema, named by chance; the caller drops it.</summary>
    public async Task<string> CreateDatabaseAsync()
    {
        await _one.WaitAsync();
        try
        {
            if (_template is null)
            {
                var name = $"{Template}_{Guid.NewGuid():N}";
                await ExecuteAsync($"create database {name}");
                await PeftDatabase.MigrateAsync(With(name), CancellationToken.None);
                NpgsqlConnection.ClearAllPools();
                _template = name;
            }

            var database = $"peftserver_{Guid.NewGuid():N}";
            await ExecuteAsync($"create database {database} template {_template}");
            return With(database);
        }
        finally
        {
            _one.Release();
        }
    }

    public async Task DropDatabaseAsync(string connectionString) =>
        await ExecuteAsync($"drop database if exists {new NpgsqlConnectionStringBuilder(connectionString).Database} with (force)");

    /// <summary>Whether <see cref="RestartAsync"/> can be called: a server that was given is not ours to stop.</summary>
    public bool IsOwn => _folder is not null;

    /// <summary>As a crash would: every connection breaks, what was committed is there afterwards.</summary>
    public async Task RestartAsync(TimeSpan away)
    {
        await StopAsync();
        await Task.Delay(away);
        await StartAsync();
    }

    public async ValueTask DisposeAsync()
    {
        if (_folder is null)
        {
            if (_template is not null)
            {
                await DropDatabaseAsync(With(_template));
            }
        }
        else
        {
            await StopAsync();
            Directory.Delete(_folder, recursive: true);
        }

        _one.Dispose();
    }

    private string Data => Path.Combine(_folder!, "data");

    private async Task StartAsync()
    {
        _server = Process.Start(Command("postgres", "-D", Data, "-k", _folder!, "-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=300"))!;
        for (var waiting = Stopwatch.StartNew(); ;)
        {
            try
            {
                await ExecuteAsync("select 1");
                return;
            }
            catch (NpgsqlException) when (waiting.Elapsed < TimeSpan.FromSeconds(30) && !_server.HasExited)
            {
                await Task.Delay(50);
            }
        }
    }

    private async Task StopAsync()
    {
        NpgsqlConnection.ClearAllPools();
        using var stop = Process.Start(Command("pg_ctl", "stop", "-D", Data, "-m", "immediate", "-s"))!;
        await stop.WaitForExitAsync();
        await _server!.WaitForExitAsync();
        _server.Dispose();
    }

    private async Task ExecuteAsync(string sql)
    {
        await using var source = NpgsqlDataSource.Create(_admin + ";Pooling=false");
        await using var command = source.CreateCommand(sql);
        await command.ExecuteNonQueryAsync();
    }

    private string With(string database) =>
        new NpgsqlConnectionStringBuilder(_admin) { Database = database, IncludeErrorDetail = true }.ConnectionString;

    private static void Run(string program, params string[] arguments)
    {
        using var process = Process.Start(Command(program, arguments))!;
        process.WaitForExit();
        if (process.ExitCode != 0)
        {
            throw new InvalidOperationException($"{program} ended with {process.ExitCode}.");
        }
    }

    private static ProcessStartInfo Command(string program, params string[] arguments)
    {
        var path = Path.Combine(Binaries(), program);
        return Environment.IsPrivilegedProcess
            ? Quiet("setpriv", ["--reuid=postgres", "--regid=postgres", "--clear-groups", path, .. arguments])
            : Quiet(path, arguments);
    }

    private static ProcessStartInfo Quiet(string program, IEnumerable<string> arguments)
    {
        var start = new ProcessStartInfo("sh", ["-c", "exec \"$@\" >/dev/null 2>&1", "sh", program, .. arguments]) { WorkingDirectory = "/" };
        return start;
    }

    // Below /tmp whatever TMPDIR says: the unprivileged user has to reach it, and a socket's path is short.
    private static string NewFolder()
    {
        var folder = Path.Combine("/tmp", $"peft-{Guid.NewGuid():N}"[..13]);
        Directory.CreateDirectory(folder);
        if (Environment.IsPrivilegedProcess)
        {
            using var chown = Process.Start("chown", ["postgres:postgres", folder]);
            chown.WaitForExit();
        }

        return folder;
    }

    private static string Binaries() =>
        Directory.Exists("/usr/lib/postgresql")
            ? Directory.GetDirectories("/usr/lib/postgresql").OrderByDescending(folder => int.TryParse(Path.GetFileName(folder), out var version) ? version : 0)
                .Select(folder => Path.Combine(folder, "bin")).First(folder => File.Exists(Path.Combine(folder, "initdb")))
            : throw new InvalidOperationException($"No PostgreSQL below /usr/lib/postgresql. Install it (apt-get install postgresql), or set {Variable}.");
}
