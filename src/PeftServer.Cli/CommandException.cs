namespace PeftServer.Cli;

/// <summary>Ends a command with a message that a person can act on, and no stack trace.</summary>
internal sealed class CommandException(string message, int exitCode, Exception? innerException = null)
    : Exception(message, innerException)
{
    public int ExitCode { get; } = exitCode;
}
