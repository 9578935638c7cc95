using System.CommandLine;
using PeftServer.Cli.Bench;
using PeftServer.Cli.Up;

namespace PeftServer.Cli.Commands;

/// <summary><c>peftserver bench methods</c></summary>
internal static class BenchMethodsCommand
{
    public static Command Create()
    {
        var samples = new Option<DirectoryInfo?>("--samples") { Description = "Folder with models/tiny-llama and datasets/spam. Default: the one beside the program.", HelpName = "DIR" };
        var steps = new Option<int?>("--steps") { Description = "Steps of 16 mails. Default: two epochs.", HelpName = "N" };
        var questions = new Option<int?>("--questions") { Description = "Validation mails to ask. Default: all 300.", HelpName = "N" };
        var names = new Option<string[]>("--only") { Description = "Names of methods; may be given more than once.", HelpName = "NAME", DefaultValueFactory = _ => [] };
        var rate = new Option<double?>("--learning-rate") { Description = "Instead of each method's own.", HelpName = "RATE" };
        var seed = new Option<int>("--seed") { Description = "Initial weights and order of rows.", HelpName = "N", DefaultValueFactory = _ => 42 };
        var torch = TrainCommand.TorchOption();
        var command = new Command("methods", "The sample mails learnt by several methods.") { samples, steps, questions, names, rate, seed, torch };
        command.SetAction((result, _) => TrainCommand.OnOwnThread(() =>
        {
            TrainCommand.LoadTorch(result.GetValue(torch));
            var bench = new MethodsBench(result.GetValue(samples)?.FullName ?? Samples.Folder, result.GetValue(steps), result.GetValue(questions), result.GetValue(seed));
            var wanted = result.GetValue(names)!;
            Console.WriteLine(MethodsBench.Heading(bench.Base()));
            foreach (var method in MethodsBench.Methods.Where(method => wanted.Length == 0 || wanted.Contains(method.Name)))
            {
                Console.WriteLine(bench.Run(method, result.GetValue(rate) ?? method.LearningRate));
            }

            return ExitCode.Done;
        }));
        return command;
    }
}
