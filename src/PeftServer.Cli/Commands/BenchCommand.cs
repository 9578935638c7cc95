using System.CommandLine;
using System.Text.Json;
using PeftServer.Cli.Bench;
using PeftServer.Engine;

namespace PeftServer.Cli.Commands;

/// <summary><c>peftserver bench</c></summary>
internal static class BenchCommand
{
    private const string Lesson = """
        Examples:
          peftserver bench train fast:8b:8:2048 fast:8b:8:2048:lean plain:1b:4:2048 --device cuda:0
          peftserver bench kernels

        train: LoRA r=16 on all linear layers of Llama shapes with random weights; a JSON line a case. fast is the hand-written
        step, plain is autograd, lean computes activations again; fast:8b:chats packs chats of mean length 234.
        Memory is what NVML says the GPU holds at the end, less what it held before: run one case a process for it.
        kernels: time of each kernel of the hand-written step beside the limit of the memory's bandwidth.
        """;

    public static Command Create()
    {
        var cases = new Argument<string[]>("CASES") { Description = "tier:shape:batch:length[:lean]", Arity = ArgumentArity.OneOrMore };
        var steps = new Option<int>("--steps") { Description = "Steps to a case.", HelpName = "N", DefaultValueFactory = _ => 8 };
        var device = new Option<string>("--device") { Description = "auto, cpu or cuda:N.", HelpName = "DEVICE", DefaultValueFactory = _ => "auto" };
        var torch = TrainCommand.TorchOption();
        var train = new Command("train", "Training speed and memory.") { cases, steps, device, torch };
        train.SetAction((result, _) => TrainCommand.OnOwnThread(() =>
        {
            TrainCommand.LoadTorch(result.GetValue(torch));
            foreach (var name in result.GetValue(cases)!)
            {
                Console.WriteLine(JsonSerializer.Serialize(TrainBench.Run(name, result.GetValue(device)!, Math.Max(5, result.GetValue(steps))), PeftJson.Options));
            }

            return ExitCode.Done;
        }));
        var kernels = new Command("kernels", "Each kernel beside the bandwidth limit.") { torch };
        kernels.SetAction((result, _) => TrainCommand.OnOwnThread(() =>
        {
            TrainCommand.LoadTorch(result.GetValue(torch));
            KernelBench.Run(Console.Out);
            return ExitCode.Done;
        }));
        return new DescribedCommand("bench", "Measure speed and memory on this machine.", Lesson) { train, kernels };
    }
}
