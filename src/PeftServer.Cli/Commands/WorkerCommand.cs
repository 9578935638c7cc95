using System.CommandLine;
using PeftServer.Worker;

namespace PeftServer.Cli.Commands;

/// <summary><c>peftserver worker</c></summary>
internal static class WorkerCommand
{
    private const string Lesson = """
        Examples:
          peftserver worker --set Worker:Devices=cpu
          peftserver worker --set Worker:Devices=cuda:0,cuda:1

        One a machine. It claims jobs from the database and runs each in a process of its own (peftserver train).
        It shares the artifact store (Storage:Root) and the models (Models:Root) with api and inference.
        """;

    public static Command Create() =>
        HostCommand.Create("worker", "Claim fine-tuning jobs and run them on this machine's devices.", Lesson, WorkerHost.RunAsync);
}
