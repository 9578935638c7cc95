using System.CommandLine;
using System.Text.Json;
using PeftServer.Cli.Bench;
using PeftServer.Cli.Up;
using PeftServer.Engine;

namespace PeftServer.Cli.Commands;

/// <summary><c>peftserver bench cpu</c></summary>
internal static class BenchCpuCommand
{
    public static Command Create()
    {
        var samples = new Option<DirectoryInfo?>("--samples") { Description = "Folder with models/tiny-llama and datasets/spam. Default: the one beside the program.", HelpName = "DIR" };
        var steps = new Option<int>("--steps") { Description = "Steps of 16 mails; 94 are an epoch.", HelpName = "N", DefaultValueFactory = _ => 94 };
        var tier = new Option<string>("--tier") { Description = "fast or plain.", HelpName = "TIER", DefaultValueFactory = _ => "fast" };
        var threads = new Option<int?>("--threads") { Description = "Default: as many as the process has cores.", HelpName = "N" };
        var torch = TrainCommand.TorchOption();
        var command = new Command("cpu", "The quick start's training phase.") { samples, steps, tier, threads, torch };
        command.SetAction((result, _) => TrainCommand.OnOwnThread(() =>
        {
            TrainCommand.LoadTorch(result.GetValue(torch));
            var figures = CpuBench.Run(
                result.GetValue(samples)?.FullName ?? Samples.Folder, result.GetValue(tier)!, Math.Max(1, result.GetValue(steps)), result.GetValue(threads) ?? Environment.ProcessorCount);
            Console.WriteLine(JsonSerializer.Serialize(figures, PeftJson.Options));
            return ExitCode.Done;
        }));
        return command;
    }
}
