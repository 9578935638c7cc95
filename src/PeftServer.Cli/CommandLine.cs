using System.CommandLine;
using System.CommandLine.Invocation;

namespace PeftServer.Cli;

/// <summary>Reads the command line, runs a command and turns what it throws into an exit code and a message.</summary>
internal static class CommandLine
{
    private const string Description = """
        Fine-tuning as a server: upload data, queue a job, get a Hugging Face PEFT adapter, chat with it.

        First steps:
          peftserver demo                      fine-tunes the sample model and chats with it
          peftserver up                        starts everything on this machine: http://127.0.0.1:8080
          peftserver up --data /srv/peft       the same, with the data elsewhere

        Settings come from appsettings.json beside the program (every setting is there with its default), then from the
        environment (Worker__Devices=cpu), then from the command line (--set Worker:Devices=cpu).

        Exit codes: 0 done; 1 the work failed; 2 the command line or a setting is wrong; 3 this machine lacks something
        (PostgreSQL, a free port, a folder).
        """;

    /// <summary>Time between SIGINT or SIGTERM and the end the hard way. Commands that stop children take up to 10 s.</summary>
    private static readonly TimeSpan TerminationTimeout = TimeSpan.FromSeconds(12);

    public static async Task<int> RunAsync(IReadOnlyList<Command> commands, string[] args)
    {
        var root = new RootCommand(Description);
        foreach (var command in commands)
        {
            root.Subcommands.Add(command);
        }

        var result = root.Parse(args);
        if (result.Action is ParseErrorAction)
        {
            result.Invoke(); // says what is wrong, and the nearest name
            return ExitCode.Usage;
        }
        try
        {
            return await result.InvokeAsync(new InvocationConfiguration
            {
                ProcessTerminationTimeout = TerminationTimeout,
                EnableDefaultExceptionHandler = false,
            });
        }
        catch (CommandException error)
        {
            await Console.Error.WriteLineAsync(error.Message);
            return error.ExitCode;
        }
    }
}
