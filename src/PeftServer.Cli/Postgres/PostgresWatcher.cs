using System.Diagnostics;
using PeftServer.Cli.Processes;

namespace PeftServer.Cli.Postgres;

/// <summary>
/// The parent of the database server. PostgreSQL does not notice when the one who started it is gone; this small process
/// does, by the end of its standard input, and shuts the server down.
/// </summary>
internal static class PostgresWatcher
{
    /// <summary>Runs <paramref name="command"/> as <paramref name="user"/> until it ends or <paramref name="stopping"/>. Returns its exit code.</summary>
    public static Task<int> RunAsync(string? user, IReadOnlyList<string> command, CancellationToken stopping)
    {
        // PDEATHSIG is bound to the thread that forks, so that thread lives as long as the server.
        var code = new TaskCompletionSource<int>(TaskCreationOptions.RunContinuationsAsynchronously);
        new Thread(() =>
        {
            try
            {
                code.SetResult(Run(user, command, stopping));
            }
            catch (Exception error)
            {
                code.SetException(error);
            }
        })
        { Name = "parent of postgres" }.Start();
        return code.Task;
    }

    private static int Run(string? user, IReadOnlyList<string> command, CancellationToken stopping)
    {
        // A watcher that is killed itself takes the server along where setpriv (util-linux) is there to arrange it.
        const string Setpriv = "/usr/bin/setpriv";
        var line = File.Exists(Setpriv) ? [Setpriv, "--pdeathsig", "INT", "--", .. command] : command;
        var info = new ProcessStartInfo(line[0], line.Skip(1)) { WorkingDirectory = "/" };
        if (user is not null)
        {
            info.UserName = user;
        }
        using var server = Process.Start(info)!;
        using var _ = stopping.Register(() => ThreadPool.QueueUserWorkItem(_ => Stop(server.Id)));
        server.WaitForExit();
        return server.ExitCode;
    }

    /// <summary>Fast shutdown; after 3 s immediate shutdown, from which the next start recovers; after 5 s the end.</summary>
    private static void Stop(int processId)
    {
        Posix.Kill(processId, Posix.SIGINT);
        Thread.Sleep(TimeSpan.FromSeconds(3));
        Posix.Kill(processId, Posix.SIGQUIT);
        Thread.Sleep(TimeSpan.FromSeconds(2));
        Posix.Kill(processId, Posix.SIGKILL);
    }
}
