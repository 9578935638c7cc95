using System.CommandLine;

namespace PeftServer.Cli.Commands;

/// <summary>The options that several commands share.</summary>
internal static class HostOptions
{
    public static Option<string?> Data() => new("--data")
    {
        Description = "Data directory. Default: $PEFTSERVER_DATA, else $XDG_DATA_HOME/peftserver.",
        HelpName = "DIR",
    };

    public static Option<string[]> Set() => new("--set")
    {
        Description = "A setting of appsettings.json; may be given more than once.",
        HelpName = "Section:Key=value",
        DefaultValueFactory = _ => [],
    };

    public static Option<int?> Port() => new("--port")
    {
        Description = "Port of the api. Default: 8080; 0: a free one.",
        HelpName = "N",
        Validators = { InRange },
    };

    public static Option<int?> AdminPort() => new("--admin-port")
    {
        Description = "Port of the admin listener (dashboard). Default: 8081, or a free one where that is taken.",
        HelpName = "N",
        Validators = { InRange },
    };

    /// <summary>Given by `up` and other supervisors.</summary>
    public static Option<bool> Supervised() => new("--supervised")
    {
        Description = "Stop when standard input ends.",
    };

    private static void InRange(System.CommandLine.Parsing.OptionResult result)
    {
        if (result.Tokens is [var token] && !(ushort.TryParse(token.Value, out _)))
        {
            result.AddError($"{result.Option.Name} {token.Value}: a port is a number from 0 (any free one) to 65535.");
        }
    }
}
