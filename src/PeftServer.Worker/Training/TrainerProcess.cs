using System.ComponentModel;
using System.Diagnostics;
using System.Globalization;
using PeftServer.Core;

namespace PeftServer.Worker.Training;

/// <summary>A running trainer. Commands go to its standard input; the end of that input means stop.</summary>
internal sealed class TrainerProcess : IDisposable
{
    private const int LastWordsBytes = 4096;
    private readonly Process _process;
    private readonly RunFolder _run;

    public TrainerProcess(Process process, RunFolder run)
    {
        (_process, _run) = (process, run);
        File.WriteAllText(run.Process, $"{process.Id} {StartTimeOf(process.Id)}");
    }

    public bool HasExited => _process.HasExited;

    public Task WaitForExitAsync(CancellationToken cancellationToken) => _process.WaitForExitAsync(cancellationToken);

    /// <summary>Asks it to end, by <paramref name="command"/> or by closing its input, and kills it with all its children when it does not.</summary>
    public async Task StopAsync(string? command, TimeSpan patience)
    {
        try
        {
            if (command is not null)
            {
                await _process.StandardInput.WriteLineAsync(command);
                await _process.StandardInput.FlushAsync();
            }
            else
            {
                _process.StandardInput.Close();
            }
        }
        catch (IOException)
        {
            // It closed its end: it is about to exit, or will be killed.
        }

        try
        {
            await _process.WaitForExitAsync().WaitAsync(patience);
        }
        catch (TimeoutException)
        {
            _process.Kill(entireProcessTree: true);
            await _process.WaitForExitAsync();
        }
    }

    /// <summary>Asks it to end by <paramref name="command"/> and waits; false when it has not ended in time or <paramref name="interrupted"/> was signalled.</summary>
    public async Task<bool> AskAsync(string command, TimeSpan patience, CancellationToken interrupted)
    {
        try
        {
            await _process.StandardInput.WriteLineAsync(command.AsMemory(), interrupted);
            await _process.StandardInput.FlushAsync(interrupted);
            await _process.WaitForExitAsync(interrupted).WaitAsync(patience, interrupted);
            return true;
        }
        catch (Exception e) when (e is IOException or TimeoutException or OperationCanceledException)
        {
            return _process.HasExited;
        }
    }

    /// <summary>How a crash is told to the job's owner: exit code or signal, and the end of what it wrote to standard error.</summary>
    public string Obituary()
    {
        var end = _process.ExitCode > 128
            ? $"The trainer was killed by signal {_process.ExitCode - 128}{Hint(_process.ExitCode - 128)}."
            : $"The trainer ended with exit code {_process.ExitCode}.";
        var words = LastWords();
        return words.Length == 0 ? end : $"{end} Its last words: {words}";
    }

    public void Dispose()
    {
        if (!_process.HasExited)
        {
            _process.Kill(entireProcessTree: true);
        }

        _process.Dispose();
    }

    /// <summary>
    /// Ends the process that a vanished worker may have left in <paramref name="run"/>, so that two never train the same
    /// job on one host.
    /// </summary>
    public static async Task KillOrphanAsync(RunFolder run, CancellationToken cancellationToken)
    {
        if (!File.Exists(run.Process) ||
            (await File.ReadAllTextAsync(run.Process, cancellationToken)).Split(' ') is not [var id, var started] ||
            !int.TryParse(id, CultureInfo.InvariantCulture, out var processId) ||
            StartTimeOf(processId) != started)
        {
            return;
        }

        try
        {
            using var orphan = Process.GetProcessById(processId);
            orphan.Kill(entireProcessTree: true);
            while (StartTimeOf(processId) == started)
            {
                await Task.Delay(20, cancellationToken);
            }
        }
        catch (Exception e) when (e is ArgumentException or InvalidOperationException or Win32Exception)
        {
            // It ended by itself, as it should when its worker vanishes.
        }
    }

    // The kernel's start time tells a process from a later one with the same number. One that has ended but was not yet
    // waited for (its worker stands still) counts as gone.
    private static string StartTimeOf(int processId)
    {
        try
        {
            var stat = File.ReadAllText($"/proc/{processId}/stat");
            var fields = stat[(stat.LastIndexOf(')') + 2)..].Split(' ');
            return fields[0] is "Z" or "X" ? "gone" : fields[19];
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return "gone";
        }
    }

    private static string Hint(int signal) => signal == 9 ? " (SIGKILL; was the host out of memory?)" : "";

    private string LastWords()
    {
        if (!File.Exists(_run.Errors))
        {
            return "";
        }

        using var file = new FileStream(_run.Errors, FileMode.Open, FileAccess.Read, FileShare.ReadWrite);
        file.Position = Math.Max(0, file.Length - LastWordsBytes);
        var tail = new byte[LastWordsBytes];
        return ForeignText.CleanTail(tail.AsSpan(0, file.ReadAtLeast(tail, tail.Length, throwOnEndOfStream: false))).Trim();
    }
}
