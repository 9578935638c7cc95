using System.CommandLine;
using PeftServer.Cli;
using PeftServer.Cli.Commands;

// The commands, in the order of `peftserver --help`. A new one is a file in Commands/ and a line here.
Command[] commands =
[
    DemoCommand.Create(),
    UpCommand.Create(),
    DataCommand.Create(),
    EstimateCommand.Create(),
    TrainCommand.Create(),
    GenerateCommand.Create(),
    ExportCommand.Create(),
    MergeCommand.Create(),
    PullCommand.Create(),
    BenchCommand.Create(),
    MigrateCommand.Create(),
    ApiCommand.Create(),
    WorkerCommand.Create(),
    InferenceCommand.Create(),
    PostgresWatcherCommand.Create(),
];

return await CommandLine.RunAsync(commands, args);
