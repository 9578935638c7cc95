using System.CommandLine;

namespace PeftServer.Cli.Commands;

/// <summary>A command with one line for the list of commands and a lesson below its own <c>--help</c>.</summary>
internal sealed class DescribedCommand(string name, string summary, string lesson) : Command(name, summary)
{
    public string Lesson { get; } = lesson;
}
