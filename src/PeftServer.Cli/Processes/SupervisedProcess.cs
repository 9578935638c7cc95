using PeftServer.Cli.Up;

namespace PeftServer.Cli.Processes;

/// <summary>
/// A child that is kept running: started, awaited until it is ready, and started again when it dies, after 1 s, 2 s,
/// 4 s … 30 s. A minute of life resets the wait.
/// </summary>
internal sealed class SupervisedProcess(ChildCommand command, string logPath, StatusLines status) : IAsyncDisposable
{
    private static readonly TimeSpan LongestWait = TimeSpan.FromSeconds(30);
    private static readonly TimeSpan Healthy = TimeSpan.FromMinutes(1);

    private readonly ChildLog _log = new(logPath);
    private readonly CancellationTokenSource _stopping = new();
    private ChildProcess? _child;
    private Task _watch = Task.CompletedTask;

    /// <summary>Runs before each start.</summary>
    public Func<CancellationToken, Task> Prepare { get; init; } = _ => Task.CompletedTask;

    /// <summary>Returns once the child does its work. Cancelled when the child dies first.</summary>
    public required Func<CancellationToken, Task> UntilReady { get; init; }

    /// <summary>How long the first start may take.</summary>
    public TimeSpan ReadyWithin { get; init; } = TimeSpan.FromSeconds(90);

    /// <summary>Of the running child.</summary>
    public int? ProcessId => _child?.Id;

    /// <summary>Starts the child and returns once it is ready. Throws <see cref="CommandException"/> with its last words.</summary>
    public async Task StartAsync(CancellationToken cancellationToken)
    {
        await StartOnceAsync(cancellationToken);
        _watch = Task.Run(() => KeepRunningAsync(_stopping.Token), CancellationToken.None);
    }

    /// <summary>Ends the child and the watch over it.</summary>
    public async Task StopAsync(TimeSpan grace)
    {
        await _stopping.CancelAsync();
        await _watch;
        if (_child is { } child)
        {
            await child.StopAsync(grace);
        }
    }

    public async ValueTask DisposeAsync()
    {
        await StopAsync(TimeSpan.Zero);
        _log.Dispose();
        _stopping.Dispose();
    }

    private async Task StartOnceAsync(CancellationToken cancellationToken)
    {
        await Prepare(cancellationToken);
        var child = _child = ChildProcess.Start(command, _log);
        using var waiting = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        waiting.CancelAfter(ReadyWithin);
        var ready = UntilReady(waiting.Token);
        if (await Task.WhenAny(ready, child.Exited) == child.Exited)
        {
            await waiting.CancelAsync();
            await ready.ContinueWith(_ => { }, CancellationToken.None, TaskContinuationOptions.None, TaskScheduler.Default);
            cancellationToken.ThrowIfCancellationRequested();
            throw new CommandException($"{command.Name} ended with code {await child.Exited} before it was ready.{LastWords()}", ExitCode.Failed);
        }
        try
        {
            await ready;
        }
        catch (OperationCanceledException) when (!cancellationToken.IsCancellationRequested)
        {
            throw new CommandException($"{command.Name} was not ready within {ReadyWithin.TotalSeconds:0} s.{LastWords()}", ExitCode.Failed);
        }
    }

    private async Task KeepRunningAsync(CancellationToken stopping)
    {
        var wait = TimeSpan.FromSeconds(1);
        try
        {
            while (true)
            {
                var since = TimeProvider.System.GetTimestamp();
                var code = await _child!.Exited.WaitAsync(stopping);
                wait = TimeProvider.System.GetElapsedTime(since) > Healthy ? TimeSpan.FromSeconds(1) : wait;
                status.Problem($"{command.Name} ended with code {code}; it starts again in {wait.TotalSeconds:0} s.{LastWords()}");
                await Task.Delay(wait, stopping);
                wait = wait * 2 < LongestWait ? wait * 2 : LongestWait;
                try
                {
                    await StartOnceAsync(stopping);
                    status.Line(command.Name, "runs again");
                }
                catch (CommandException)
                {
                    await _child.StopAsync(TimeSpan.Zero); // told at the head of the loop
                }
            }
        }
        catch (OperationCanceledException)
        {
            // StopAsync ends the child.
        }
    }

    private string LastWords()
    {
        var lines = _log.LastLines(12);
        return lines.Count == 0
            ? $" It printed nothing ({_log.Path})."
            : $" Its last words ({_log.Path}):\n{string.Join('\n', lines.Select(line => "  | " + LogLine.ForPeople(line)))}";
    }
}
