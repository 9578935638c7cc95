using System.CommandLine;
using System.CommandLine.Help;
using System.CommandLine.Invocation;
using System.Net.Sockets;
using Microsoft.AspNetCore.Connections;
using Microsoft.Extensions.Options;

namespace PeftServer.Cli;

/// <summary>Reads the command line, runs a command and turns what it throws into an exit code and a message.</summary>
internal static class CommandLine
{
    private const string Summary = "Fine-tuning as a server: upload data, queue a job, get a Hugging Face PEFT adapter, chat with it.";

    private const string Lesson = """
        First steps:
          peftserver demo                    fine-tune the sample model and chat with it
          peftserver up                      start everything on this machine: http://127.0.0.1:8080
          peftserver up --data /srv/peft     the same, with the data elsewhere
          peftserver COMMAND --help          more of each command, with examples

        Settings come from appsettings.json beside the program (every one is there with its default), then from the
        environment (Worker__Devices=cpu), then from the command line (--set Worker:Devices=cpu).

        Exit codes:
          0  done
          1  the work failed
          2  the command line or a setting is wrong
          3  this machine lacks something: PostgreSQL, a free port, a folder
        """;

    /// <summary>Time between SIGINT or SIGTERM and the end the hard way. Commands that stop children take up to 10 s.</summary>
    private static readonly TimeSpan TerminationTimeout = TimeSpan.FromSeconds(12);

    public static async Task<int> RunAsync(IReadOnlyList<Command> commands, string[] args)
    {
        var root = new RootCommand(Summary);
        foreach (var command in commands)
        {
            root.Subcommands.Add(command);
        }
        var help = root.Options.OfType<HelpOption>().Single();
        help.Action = new LessonHelp((HelpAction)help.Action!, Lesson);

        var result = root.Parse(args);
        if (result.Action is ParseErrorAction wrong)
        {
            wrong.ShowHelp = false;
            result.Invoke(); // says what is wrong, and the nearest name
            await Console.Error.WriteLineAsync($"See {CommandPath(result)} --help.");
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
        catch (OptionsValidationException error)
        {
            await Console.Error.WriteLineAsync($"A setting is wrong: {string.Join(' ', error.Failures)}");
            return ExitCode.Usage;
        }
        catch (IOException error) when (error.InnerException is AddressInUseException or SocketException)
        {
            await Console.Error.WriteLineAsync($"{error.Message} Choose another address with --set Api:Url=…, Api:AdminUrl=… or Inference:Url=….");
            return ExitCode.Environment;
        }
    }

    private static string CommandPath(ParseResult result) =>
        result.CommandResult.Command is RootCommand ? "peftserver" : $"peftserver {result.CommandResult.Command.Name}";
}
