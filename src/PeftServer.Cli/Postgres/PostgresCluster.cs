using System.Diagnostics;
using System.Globalization;
using System.Security.Cryptography;
using PeftServer.Cli.Processes;
using PeftServer.Cli.Up;

namespace PeftServer.Cli.Postgres;

/// <summary>What the data directory remembers of its database.</summary>
/// <param name="Folder">Holds the cluster: below the data directory, or below /var/lib/peftserver for root.</param>
/// <param name="User">Who runs it, when that is not the owner of the data directory.</param>
/// <param name="Password">Of the database role; only the owner of the data directory can read it.</param>
/// <param name="Initialized">The cluster was complete once: when it is gone, that is a loss and not a first start.</param>
internal sealed record ClusterRecord(string Folder, string? User, string Password, bool Initialized)
{
    public const string FileName = "postgres.json";
}

/// <summary>
/// A PostgreSQL cluster of this installation's own, under scram passwords on a loopback port, never run as root.
/// </summary>
internal sealed class PostgresCluster : IDisposable
{
    public const string Role = "peftserver";
    private const string FoldersOfRoot = "/var/lib/peftserver";
    private const UnixFileMode OwnerOnly = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute;

    private readonly FileStream _lock;

    private PostgresCluster(ClusterRecord record, UnixUser? user, PostgresBinaries binaries, FileStream @lock)
    {
        Record = record;
        User = user;
        Binaries = binaries;
        _lock = @lock;
    }

    public ClusterRecord Record { get; }

    /// <summary>The unprivileged account that runs the server; null: our own.</summary>
    public UnixUser? User { get; }

    public PostgresBinaries Binaries { get; }

    public string Data => Path.Combine(Record.Folder, "data");

    /// <summary>Opens the cluster of <paramref name="data"/>, making it at the first start.</summary>
    public static async Task<PostgresCluster> OpenAsync(DataDirectory data, string? binPath, CancellationToken cancellationToken)
    {
        var record = data.Read<ClusterRecord>(ClusterRecord.FileName);
        var binaries = await PostgresBinaries.FindAsync(binPath, VersionOf(record), cancellationToken);
        record ??= Plan(data);
        data.Write(ClusterRecord.FileName, record); // before the first byte: a half-made cluster is found again
        var user = record.User is null ? null : UnixUser.Find(record.User) ?? throw new CommandException(
            $"The database in {record.Folder} belongs to the account {record.User}, which is gone.", ExitCode.Environment);
        if (user is null && Environment.IsPrivilegedProcess)
        {
            throw new CommandException(
                $"The database in {record.Folder} was made without root, and PostgreSQL never runs as root: start as the owner of {data.Root}.",
                ExitCode.Environment);
        }
        PrepareFolder(record, user);
        var @lock = DataDirectory.TakeLock(record.Folder, "another peftserver", $"Two data directories name it; see {ClusterRecord.FileName}.");
        var cluster = new PostgresCluster(record, user, binaries, @lock);
        await cluster.InitializeAsync(cancellationToken);
        if (!record.Initialized)
        {
            data.Write(ClusterRecord.FileName, record with { Initialized = true });
        }
        return cluster;
    }

    /// <summary>
    /// The server in the foreground, with the memory of a small machine. Tables are small (jobs, events, metrics);
    /// what is large lies in files.
    /// </summary>
    public IReadOnlyList<string> ServerCommand(int port)
    {
        string[] settings =
        [
            "listen_addresses=127.0.0.1",
            $"port={port}",
            "unix_socket_directories=",
            "shared_buffers=32MB",
            "max_connections=100",
            "work_mem=4MB",
            "maintenance_work_mem=32MB",
            "max_wal_size=256MB",
            "wal_level=minimal", // nothing replicates from here
            "max_wal_senders=0",
            "autovacuum_max_workers=2",
            "max_parallel_workers_per_gather=0",
            "jit=off",
            "huge_pages=off",
            "logging_collector=off",
            "log_line_prefix=%m [%p] ",
            "timezone=UTC",
            "log_timezone=UTC",
        ];
        return [Binaries.Postgres, "-D", Data, .. settings.SelectMany(setting => new[] { "-c", setting })];
    }

    public string ConnectionString(int port, string database) =>
        new Npgsql.NpgsqlConnectionStringBuilder
        {
            Host = "127.0.0.1",
            Port = port,
            Database = database,
            Username = Role,
            Password = Record.Password,
            MaxPoolSize = 24,
            Timeout = 5,
        }.ConnectionString;

    /// <summary>
    /// Ends what a killed predecessor left running on this cluster, and removes a postmaster.pid whose process is gone
    /// or is another program by now. Safe because this process holds the cluster's lock.
    /// </summary>
    public async Task EndStaleServerAsync(CancellationToken cancellationToken)
    {
        // fast shutdown, immediate shutdown, end
        foreach (var (signal, patience) in new[] { (Posix.SIGINT, 5.0), (Posix.SIGQUIT, 2.0), (Posix.SIGKILL, 2.0) })
        {
            var until = TimeProvider.System.GetTimestamp();
            foreach (var process in Running())
            {
                Posix.Kill(process, signal);
            }
            while (Running().Count > 0 && TimeProvider.System.GetElapsedTime(until).TotalSeconds < patience)
            {
                await Task.Delay(50, cancellationToken);
            }
        }
        File.Delete(Path.Combine(Data, "postmaster.pid"));
    }

    public void Dispose() => _lock.Dispose();

    /// <summary>Every process of a server works in its cluster's folder, whatever its postmaster.pid says.</summary>
    private List<int> Running()
    {
        var found = new List<int>();
        foreach (var folder in Directory.EnumerateDirectories("/proc"))
        {
            if (!int.TryParse(Path.GetFileName(folder), NumberStyles.None, CultureInfo.InvariantCulture, out var process))
            {
                continue;
            }
            try
            {
                if (File.ResolveLinkTarget(Path.Combine(folder, "cwd"), returnFinalTarget: false)?.FullName == Data)
                {
                    found.Add(process);
                }
            }
            catch (Exception error) when (error is IOException or UnauthorizedAccessException)
            {
                // another user's process, or one that has just ended
            }
        }
        return found;
    }

    private static ClusterRecord Plan(DataDirectory data)
    {
        var password = Convert.ToHexStringLower(RandomNumberGenerator.GetBytes(24));
        if (!Environment.IsPrivilegedProcess)
        {
            return new ClusterRecord(Path.Combine(data.Root, "postgres"), User: null, password, Initialized: false);
        }
        var user = UnixUser.Find("postgres") ?? UnixUser.Find("nobody") ?? throw new CommandException(
            "PostgreSQL does not run as root, and this machine has neither an account postgres nor nobody. Start as another user.",
            ExitCode.Environment);
        var id = Convert.ToHexStringLower(RandomNumberGenerator.GetBytes(6));
        return new ClusterRecord(Path.Combine(FoldersOfRoot, id), user.Name, password, Initialized: false);
    }

    private static int? VersionOf(ClusterRecord? record)
    {
        if (record is null)
        {
            return null;
        }
        var path = Path.Combine(record.Folder, "data", "PG_VERSION");
        if (File.Exists(path))
        {
            return int.Parse(File.ReadAllText(path).Trim(), CultureInfo.InvariantCulture);
        }
        return record.Initialized
            ? throw new CommandException(
                $"The database of this data directory was in {record.Folder}/data and is not there any more. Bring it back, "
                + "or start afresh with another folder (--data DIR).", ExitCode.Environment)
            : null;
    }

    private static void PrepareFolder(ClusterRecord record, UnixUser? user)
    {
        if (user is null)
        {
            Directory.CreateDirectory(record.Folder, OwnerOnly);
            return;
        }
        Directory.CreateDirectory(FoldersOfRoot);
        Directory.CreateDirectory(record.Folder, OwnerOnly);
        Posix.ChangeOwner(record.Folder, user);
    }

    /// <summary>Makes the cluster beside its place and moves it there whole, so that a killed first start leaves nothing half-made.</summary>
    private async Task InitializeAsync(CancellationToken cancellationToken)
    {
        if (Directory.Exists(Data))
        {
            return;
        }
        DeleteUnfinished();
        var unfinished = $"{Data}.{Environment.ProcessId}"; // not a fixed name: a killed start's initdb may still write
        var passwordFile = Path.Combine(Record.Folder, "password");
        await File.WriteAllTextAsync(passwordFile, "", cancellationToken);
        File.SetUnixFileMode(passwordFile, UnixFileMode.UserRead | UnixFileMode.UserWrite);
        if (User is not null)
        {
            Posix.ChangeOwner(passwordFile, User);
        }
        await File.WriteAllTextAsync(passwordFile, Record.Password, cancellationToken);
        await RunInitdbAsync(unfinished, passwordFile, cancellationToken);
        File.Delete(passwordFile);
        Directory.Move(unfinished, Data);
    }

    private void DeleteUnfinished()
    {
        foreach (var folder in Directory.EnumerateDirectories(Record.Folder, "data.*"))
        {
            try
            {
                Directory.Delete(folder, recursive: true);
            }
            catch (IOException)
            {
                // still being written to; the next first start deletes it
            }
        }
    }

    private async Task RunInitdbAsync(string folder, string passwordFile, CancellationToken cancellationToken)
    {
        // Locale C: the same order on every machine, and an upgrade of the C library breaks no index.
        var info = new ProcessStartInfo(
            Binaries.Initdb,
            ["-D", folder, "-U", Role, "-A", "scram-sha-256", $"--pwfile={passwordFile}", "-E", "UTF8", "--locale=C"])
        {
            WorkingDirectory = Record.Folder,
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        if (User is not null)
        {
            info.UserName = User.Name;
        }
        using var initdb = Process.Start(info)!;
        initdb.StandardInput.Close();
        var output = initdb.StandardOutput.ReadToEndAsync(cancellationToken);
        var error = initdb.StandardError.ReadToEndAsync(cancellationToken);
        try
        {
            await initdb.WaitForExitAsync(cancellationToken);
        }
        catch (OperationCanceledException)
        {
            initdb.Kill(entireProcessTree: true);
            throw;
        }
        if (initdb.ExitCode != 0)
        {
            throw new CommandException($"initdb could not make a database in {folder}:\n{await output}{await error}", ExitCode.Environment);
        }
    }
}
