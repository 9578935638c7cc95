using System.CommandLine;
using PeftServer.Cli.Bench;

namespace PeftServer.Cli.Commands;

/// <summary><c>peftserver bench estimate</c></summary>
internal static class BenchEstimateCommand
{
    public static Command Create()
    {
        var device = new Option<string>("--device") { Description = "cpu or cuda:N.", HelpName = "DEVICE", DefaultValueFactory = _ => "cpu" };
        var steps = new Option<int>("--steps") { Description = "Steps of each run.", HelpName = "N", DefaultValueFactory = _ => 5 };
        var names = new Option<string[]>("--only") { Description = "Names of runs; may be given more than once.", HelpName = "NAME", DefaultValueFactory = _ => [] };
        var others = new Option<bool>("--others") { Description = "Ten other runs, of models and settings that nothing in an estimate was fitted on." };
        var torch = TrainCommand.TorchOption();
        var command = new Command("estimate", "Estimates beside what the runs take.") { device, steps, names, others, torch };
        command.SetAction((result, _) => TrainCommand.OnOwnThread(() =>
        {
            TrainCommand.LoadTorch(result.GetValue(torch));
            var (where, wanted) = (result.GetValue(device)!, result.GetValue(names)!);
            var all = (where == "cpu", result.GetValue(others)) switch
            {
                (true, false) => EstimateCase.OnCpu,
                (true, true) => EstimateCase.OthersOnCpu,
                (false, false) => EstimateCase.OnGpu,
                (false, true) => EstimateCase.OthersOnGpu,
            };
            var cases = all.Where(each => wanted.Length == 0 || wanted.Contains(each.Name)).ToList();
            var root = Directory.CreateTempSubdirectory("peftserver-estimate-").FullName;
            try
            {
                var bench = new EstimateBench([Environment.ProcessPath!], where);
                Console.WriteLine(EstimateBench.Heading);
                var errors = new List<double>();
                foreach (var @case in cases)
                {
                    var (told, held) = bench.Run(@case, root, Math.Max(1, result.GetValue(steps)));
                    errors.Add(Math.Abs(EstimateBench.Error(told, held)));
                    Console.WriteLine(EstimateBench.Line(@case.Name, told, held));
                }

                Console.WriteLine(FormattableString.Invariant($"{errors.Count} runs; the estimate of memory is {errors.DefaultIfEmpty().Max():P1} off at most, {errors.DefaultIfEmpty().Average():P1} on average."));
                return ExitCode.Done;
            }
            finally
            {
                Directory.Delete(root, recursive: true);
            }
        }));
        return command;
    }
}
