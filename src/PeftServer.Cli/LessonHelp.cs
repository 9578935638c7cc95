using System.CommandLine;
using System.CommandLine.Help;
using System.CommandLine.Invocation;
using PeftServer.Cli.Commands;

namespace PeftServer.Cli;

/// <summary>The usual help, and below it what the command has to teach: examples first.</summary>
internal sealed class LessonHelp(HelpAction usual, string rootLesson) : SynchronousCommandLineAction
{
    public override bool ClearsParseErrors => true;

    public override int Invoke(ParseResult parseResult)
    {
        var code = usual.Invoke(parseResult);
        var lesson = parseResult.CommandResult.Command switch
        {
            DescribedCommand command => command.Lesson,
            RootCommand => rootLesson,
            _ => null,
        };
        if (lesson is not null)
        {
            parseResult.InvocationConfiguration.Output.WriteLine(lesson);
        }
        return code;
    }
}
