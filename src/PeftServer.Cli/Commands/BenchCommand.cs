using System.CommandLine;
using System.Text.Json;
using PeftServer.Cli.Bench;
using PeftServer.Engine;
using PeftServer.Engine.Quantization;
using static TorchSharp.torch;

namespace PeftServer.Cli.Commands;

/// <summary><c>peftserver bench</c></summary>
internal static class BenchCommand
{
    private const string Lesson = """
        Examples:
          peftserver bench train fast:8b:8:2048 fast:8b:8:2048:lean plain:1b:4:2048 --device cuda:0
          peftserver bench train fast:8b:8:2048:fp8:8192 fast:8b:8:2048:lean:nf4 fast:gemma3-1b:4:2048
          peftserver bench losses FOLDER --steps 200
          peftserver bench kernels
          taskset -c 0,1 peftserver bench cpu
          taskset -c 0,1 peftserver bench methods
          peftserver bench estimate
          peftserver bench load FOLDER --device cuda:0

        train: LoRA r=16 on all linear layers of published shapes with random weights; a JSON line a case. fast is the hand-written
        step, plain is autograd; fast:8b:chats packs chats of mean length 234. Behind a case: keep or a number of tokens
        (activations kept, so many tokens at a time), lean (computed again), offload (inputs of blocks in host memory), nf4, fp8.
        Without one the plan is chosen by the memory that is free. Memory is what NVML says the GPU holds at the end, less what
        it held before: run one case a process for it.
        losses: the loss of every step from FOLDER/base, FOLDER/adapter and FOLDER/batches.safetensors (ids [batches, rows, length]).
        kernels: time of each kernel of the hand-written step beside the limit of the memory's bandwidth.
        cpu: the quick start's training phase on the cores that this process may use: real tokens a second, first and last loss.
        methods: the sample mails learnt by LoRA, DoRA, IA3, OFT, prompt tuning and all weights: a table in Markdown.
        estimate: memory, steps, tokens and time that `peftserver estimate` tells beside those of the run, over ten runs.
        load: gigabytes a second of loading a model, and the host's memory before it and at most: one model a process.
        """;

    public static Command Create()
    {
        var cases = new Argument<string[]>("CASES") { Description = "tier:shape:batch:length[:option...]", Arity = ArgumentArity.OneOrMore };
        var steps = new Option<int>("--steps") { Description = "Steps to a case.", HelpName = "N", DefaultValueFactory = _ => 8 };
        var device = new Option<string>("--device") { Description = "auto, cpu or cuda:N.", HelpName = "DEVICE", DefaultValueFactory = _ => "auto" };
        var torch = TrainCommand.TorchOption();
        var phases = new Option<bool>("--phases") { Description = "Also the time of each part of a step, waiting for the device after each." };
        var train = new Command("train", "Training speed and memory.") { cases, steps, device, phases, torch };
        train.SetAction((result, _) => TrainCommand.OnOwnThread(() =>
        {
            TrainCommand.LoadTorch(result.GetValue(torch));
            foreach (var name in result.GetValue(cases)!)
            {
                Console.WriteLine(JsonSerializer.Serialize(TrainBench.Run(name, result.GetValue(device)!, Math.Max(1, result.GetValue(steps)), result.GetValue(phases)), PeftJson.Options));
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
        var folder = new Argument<string>("FOLDER") { Description = "base/, adapter/ and batches.safetensors." };
        var quantization = new Option<BaseQuantization>("--quantization") { Description = "How the base is held: none, nf4 or fp8.", HelpName = "KIND" };
        var tier = new Option<string>("--tier") { Description = "fast or plain.", HelpName = "TIER", DefaultValueFactory = _ => "fast" };
        var losses = new Command("losses", "The loss of every step from given weights and data.") { folder, steps, device, quantization, tier, torch };
        losses.SetAction((result, _) => TrainCommand.OnOwnThread(() =>
        {
            TrainCommand.LoadTorch(result.GetValue(torch));
            var curve = LossBench.Run(result.GetValue(folder)!, result.GetValue(device)!, result.GetValue(steps), result.GetValue(quantization), result.GetValue(tier)!);
            Console.WriteLine(JsonSerializer.Serialize(curve, PeftJson.Options));
            return ExitCode.Done;
        }));
        var model = new Argument<string>("FOLDER") { Description = "A model's folder or GGUF file." };
        var dtype = new Option<ScalarType?>("--dtype") { Description = "float32, bfloat16 or float16; without it what the device trains in.", HelpName = "TYPE" };
        var load = new Command("load", "Speed of loading a model, and the memory it takes.") { model, device, dtype, torch };
        load.SetAction((result, _) => TrainCommand.OnOwnThread(() =>
        {
            TrainCommand.LoadTorch(result.GetValue(torch));
            var figures = LoadBench.Run(result.GetValue(model)!, result.GetValue(device)!, result.GetValue(dtype));
            Console.WriteLine(JsonSerializer.Serialize(figures, PeftJson.Options));
            return ExitCode.Done;
        }));
        return new DescribedCommand("bench", "Measure speed and memory on this machine.", Lesson) { train, losses, kernels, load, BenchCpuCommand.Create(), BenchMethodsCommand.Create(), BenchEstimateCommand.Create() };
    }
}
