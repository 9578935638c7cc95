using System.Diagnostics;
using PeftServer.Testing;

namespace PeftServer.Worker.Tests;

/// <summary>A worker in a process of its own, which a test may kill, stop and continue.</summary>
internal sealed class WorkerProcess : IDisposable
{
    private readonly Process _process;

    private WorkerProcess(Process process) => _process = process;

    public static WorkerProcess Start(TestDatabase database, params (string Key, string? Value)[] settings)
    {
        var all = database.Settings.Select(setting => (setting.Key, setting.Value)).Concat(TestJobs.WorkerSettings).Concat(settings);
        var program = Path.Combine(AppContext.BaseDirectory, "PeftServer.Worker.Tests");
        var log = Path.Combine(database.Folder, $"worker-{Guid.NewGuid():N}.log");
        var start = new ProcessStartInfo(
            "/bin/sh", ["-c", "log=$1; shift; exec \"$@\" >\"$log\" 2>&1", "sh", log, program, "worker", .. all.Select(setting => $"--{setting.Key}={setting.Value}")]);
        start.Environment["WORKER_TEST_SECRET"] = "not for trainers";
        return new WorkerProcess(Process.Start(start)!);
    }

    public int Id => _process.Id;

    /// <summary>As the kernel's out-of-memory killer does it: nothing is said to anybody.</summary>
    public void Kill()
    {
        Signal("KILL");
        _process.WaitForExit();
    }

    public void Signal(string name)
    {
        using var kill = Process.Start("kill", [$"-{name}", $"{_process.Id}"]);
        kill.WaitForExit();
    }

    public async Task StopAsync(CancellationToken cancellationToken)
    {
        Signal("TERM");
        await _process.WaitForExitAsync(cancellationToken);
    }

    public void Dispose()
    {
        if (!_process.HasExited)
        {
            _process.Kill(entireProcessTree: true);
            _process.WaitForExit();
        }

        _process.Dispose();
    }
}
