using System.CommandLine;
using PeftServer.Api;

namespace PeftServer.Cli.Commands;

/// <summary><c>peftserver api</c></summary>
internal static class ApiCommand
{
    private const string Lesson = """
        Examples:
          peftserver api --set "ConnectionStrings:Postgres=Host=db;Database=peftserver;Username=peftserver;Password=…"
          peftserver api --set Api:Url=http://*:8080 --set Auth:ApiKey=…

        Needs a migrated database (peftserver migrate) and, for chat, at least one inference host on the same database
        with the same Inference:InternalKey. Loads no tensors.
        """;

    public static Command Create() =>
        HostCommand.Create("api", "Serve the HTTP API: files, fine-tuning jobs, models, chat.", Lesson, ApiHost.RunAsync);
}
