namespace PeftServer.Cli.Processes;

/// <summary>
/// The child's end of the pipe: with <c>--supervised</c>, standard input that ends means "stop", and a process that is
/// still there some seconds later is killed.
/// </summary>
internal sealed class SupervisedLifetime : IDisposable
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(6);
    private readonly CancellationTokenSource _stop;
    private readonly ManualResetEventSlim _ended = new();

    private SupervisedLifetime(CancellationToken cancellationToken) =>
        _stop = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);

    /// <summary>Cancelled when the supervisor is gone or asks to stop.</summary>
    public CancellationToken Stopping => _stop.Token;

    public static SupervisedLifetime Watch(bool supervised, CancellationToken cancellationToken)
    {
        var lifetime = new SupervisedLifetime(cancellationToken);
        if (supervised)
        {
            Posix.StartSession();
            new Thread(lifetime.WaitForEndOfPipe) { IsBackground = true, Name = "supervisor's pipe" }.Start();
        }
        return lifetime;
    }

    /// <summary>The command has ended by itself.</summary>
    public void Dispose() => _ended.Set();

    private void WaitForEndOfPipe()
    {
        using var input = Console.OpenStandardInput();
        Span<byte> ignored = stackalloc byte[256];
        while (input.Read(ignored) > 0)
        {
        }
        _ = _stop.CancelAsync(); // on another thread: what hangs there must not hang this one
        if (!_ended.Wait(Patience))
        {
            Posix.Kill(Environment.ProcessId, Posix.SIGKILL);
        }
    }
}
