using System.Diagnostics;

namespace PeftServer.Cli.Processes;

/// <summary>How to start a child: a subcommand of this program, its settings in the environment where `ps` shows none.</summary>
internal sealed record ChildCommand(
    string Name,
    IReadOnlyList<string> Arguments,
    IReadOnlyDictionary<string, string> Environment);

/// <summary>
/// A running child. Its standard input is a pipe that this process alone holds open: when this process ends, however
/// it ends, the child reads the end of the pipe and stops.
/// </summary>
internal sealed class ChildProcess : IAsyncDisposable
{
    private readonly Process _process;
    private readonly Task _pumps;

    private ChildProcess(Process process, ChildLog log)
    {
        _process = process;
        _pumps = Task.WhenAll(
            log.CopyAsync(process.StandardOutput.BaseStream, CancellationToken.None),
            log.CopyAsync(process.StandardError.BaseStream, CancellationToken.None));
        Exited = WaitAsync();
    }

    public int Id => _process.Id;

    /// <summary>The exit code, once the child has ended.</summary>
    public Task<int> Exited { get; }

    public static ChildProcess Start(ChildCommand command, ChildLog log)
    {
        var program = OwnProgram();
        var info = new ProcessStartInfo(program[0], [.. program[1..], .. command.Arguments])
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        foreach (var (name, value) in command.Environment)
        {
            info.Environment[name] = value;
        }
        return new ChildProcess(Process.Start(info)!, log);
    }

    /// <summary>Closes the pipe, waits, and kills what is still there after <paramref name="grace"/>.</summary>
    public async Task StopAsync(TimeSpan grace)
    {
        try
        {
            _process.StandardInput.Close();
        }
        catch (IOException)
        {
            // It died with the pipe full of nothing: there is no one left to tell.
        }
        try
        {
            await Exited.WaitAsync(grace);
        }
        catch (TimeoutException)
        {
            _process.Kill(entireProcessTree: true);
            await Exited;
        }
    }

    public async ValueTask DisposeAsync()
    {
        await StopAsync(TimeSpan.Zero);
        _process.Dispose();
    }

    private async Task<int> WaitAsync()
    {
        await _process.WaitForExitAsync();
        // Grandchildren may hold the output open for ever; the last words of the child itself come at once.
        await Task.WhenAny(_pumps, Task.Delay(TimeSpan.FromMilliseconds(500)));
        return _process.ExitCode;
    }

    /// <summary>The native launcher beside this assembly, or `dotnet peftserver.dll` where there is none.</summary>
    private static string[] OwnProgram()
    {
        var launcher = Path.Combine(AppContext.BaseDirectory, "peftserver");
        return File.Exists(launcher) ? [launcher] : [Environment.ProcessPath!, launcher + ".dll"];
    }
}
