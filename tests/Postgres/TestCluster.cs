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

    /// <summary>A server that its test may stop and start, whatever the variable says.</summary>
    public static async Task<TestCluster> StartOwnAsync()
    {
        var cluster = new TestCluster();
        await cluster.StartNewAsync();
        return cluster;
    }

    private const string Template = "peftserver_template";
    private const string ToItsEnd = "exec \"$@\" >/dev/null 2>&1";

    // Whoever holds the other end of the pipe stops the server by letting go of it, even by being killed.
    private const string UntilInputEnds = "\"$@\" >/dev/null 2>&1 & child=$!; cat >/dev/null; kill -QUIT $child 2>/dev/null; wait $child";

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

        await StartNewAsync();
    }

    private async Task StartNewAsync()
    {
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

    /// <summary>As a crash would: every connection breaks, what was committed is there afterwards. Of an own server only.</summary>
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
        var start = Command(UntilInputEnds, "postgres", "-D", Data, "-k", _folder!, "-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=300");
        start.RedirectStandardInput = true;
        _server = Process.Start(start)!;
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
        _server!.StandardInput.Close();
        await _server.WaitForExitAsync();
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
        using var process = Process.Start(Command(ToItsEnd, program, arguments))!;
        process.WaitForExit();
        if (process.ExitCode != 0)
        {
            throw new InvalidOperationException($"{program} ended with {process.ExitCode}.");
        }
    }

    private static ProcessStartInfo Command(string script, string program, params string[] arguments)
    {
        string[] command = [Path.Combine(Binaries(), program), .. arguments];
        string[] unprivileged = Environment.IsPrivilegedProcess ? ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] : [];
        return new ProcessStartInfo("sh", ["-c", script, "sh", .. unprivileged, .. command]) { WorkingDirectory = "/" };
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
