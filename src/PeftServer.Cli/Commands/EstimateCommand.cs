using System.CommandLine;
using System.Text.Json;
using PeftServer.Engine;
using PeftServer.Engine.Native;
using PeftServer.Engine.Training;

namespace PeftServer.Cli.Commands;

/// <summary><c>peftserver estimate</c></summary>
internal static class EstimateCommand
{
    private const string Lesson = """
        Examples:
          peftserver estimate --spec run/spec.json
          peftserver estimate --spec run/spec.json --device cuda:0

        Counts rows, tokens and steps as the run will, adds up its memory from shapes, and times a product of the run's own
        shape and the device's memory for the speed. Nothing is trained. Memory is that of the process at its peak, or of the tensors on the GPU,
        to which the CUDA context comes (about half a GiB). Time is a rough guide; evaluations and saves are not in it.
        `peftserver bench estimate` holds all this to runs.
        """;

    public static Command Create()
    {
        var spec = new Option<FileInfo>("--spec") { Description = "The run: spec.json in its run folder.", HelpName = "FILE", Required = true };
        var device = new Option<string?>("--device") { Description = "auto, cpu or cuda:N. Default: what the spec says.", HelpName = "DEVICE" };
        var json = new Option<bool>("--json") { Description = "One JSON object instead of lines." };
        var torchFolder = TrainCommand.TorchOption();
        var command = new DescribedCommand("estimate", "Say what a run will need: tokens, steps, memory, time.", Lesson) { spec, device, json, torchFolder };
        command.SetAction((result, _) => TrainCommand.OnOwnThread(() =>
        {
            var path = result.GetRequiredValue(spec);
            if (!path.Exists)
            {
                throw new CommandException($"--spec {path}: there is no such file.", ExitCode.Usage);
            }

            try
            {
                TrainCommand.LoadTorch(result.GetValue(torchFolder));
                var picked = new List<string>();
                var run = AutoSettings.Resolve(TrainingSpec.Read(path.FullName), picked.Add);
                return Tell(run, picked, result.GetValue(device), result.GetValue(json));
            }
            catch (Exception e) when (e is JsonException or TrainingException or Engine.Weights.CheckpointException or Engine.Adapters.AdapterException or TorchException or IOException)
            {
                throw new CommandException(e.Message, ExitCode.Failed, e);
            }
        }));
        return command;
    }

    private static int Tell(TrainingSpec spec, IReadOnlyList<string> picked, string? wanted, bool json)
    {
        var device = Devices.Parse(wanted ?? spec.Device);
        var (estimate, speed) = RunEstimates.Of(spec, device);
        var (data, memory) = (estimate.Data, estimate.Memory);
        if (json)
        {
            Console.WriteLine(JsonSerializer.Serialize(
                new RunFigures(memory.Total, estimate.Steps, estimate.Tokens, RunEstimates.Seconds(estimate, speed)) { Memory = memory, Picked = picked }, PeftJson.Options));
            return ExitCode.Done;
        }

        foreach (var pick in picked)
        {
            Console.WriteLine($"picked      {pick}");
        }

        var most = estimate.IsUpperBound ? " at most" : "";
        Console.WriteLine($"rows        {data.Used} of {data.Rows} used, {data.Cut} cut, {data.Split} split, {data.Skipped} skipped; the longest has {data.LongestRow} tokens");
        Console.WriteLine($"steps       {estimate.Steps}");
        Console.WriteLine($"tokens      {estimate.Tokens}{most}");
        Console.WriteLine(FormattableString.Invariant($"parameters  {estimate.Parameters.Trainable} of {estimate.Parameters.Base} train"));
        Console.WriteLine(FormattableString.Invariant(
            $"memory      {Mebibytes(memory.Total)} MiB on {device} at the peak: program {Mebibytes(memory.Runtime)}, base {Mebibytes(memory.Weights)}, trained weights and optimizer {Mebibytes(memory.Trained)}, largest micro-batch {Mebibytes(memory.Activations)}"));
        Console.WriteLine($"step        {memory.Step}");
        Console.WriteLine(FormattableString.Invariant(
            $"time        about {TimeSpan.FromSeconds(Math.Ceiling(RunEstimates.Seconds(estimate, speed)))}{most} on {device} ({speed.FlopsPerSecond / 1e9:F0} GFLOP/s in products, {speed.BytesPerSecond / 1e9:F0} GB/s beside them)"));
        return ExitCode.Done;
    }

    private static long Mebibytes(long bytes) => (bytes + (1 << 20) - 1) >> 20;
}
