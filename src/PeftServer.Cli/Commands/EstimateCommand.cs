using System.CommandLine;
using System.Diagnostics;
using System.Text.Json;
using PeftServer.Engine.Native;
using PeftServer.Engine.Training;
using TorchSharp;

namespace PeftServer.Cli.Commands;

/// <summary><c>peftserver estimate</c></summary>
internal static class EstimateCommand
{
    private const string Lesson = """
        Examples:
          peftserver estimate --spec run/spec.json
          peftserver estimate --spec run/spec.json --device cuda:0

        Counts rows, tokens and steps as the run will, adds up its memory from shapes, and times a few products of matrices
        on the device for the speed. Nothing is trained. Time is a rough guide; evaluations and saves are not in it.
        """;

    /// <summary>Share of the speed of large products that training reaches.</summary>
    private const double Efficiency = 0.4;

    public static Command Create()
    {
        var spec = new Option<FileInfo>("--spec") { Description = "The run: spec.json in its run folder.", HelpName = "FILE", Required = true };
        var device = new Option<string?>("--device") { Description = "auto, cpu or cuda:N. Default: what the spec says.", HelpName = "DEVICE" };
        var torchFolder = TrainCommand.TorchOption();
        var command = new DescribedCommand("estimate", "Say what a run will need: tokens, steps, memory, time.", Lesson) { spec, device, torchFolder };
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
                return Tell(TrainingSpec.Read(path.FullName), result.GetValue(device));
            }
            catch (Exception e) when (e is JsonException or TrainingException or Engine.Weights.CheckpointException or Engine.Adapters.AdapterException or IOException)
            {
                throw new CommandException(e.Message, ExitCode.Failed, e);
            }
        }));
        return command;
    }

    private static int Tell(TrainingSpec spec, string? wanted)
    {
        var device = Devices.Parse(wanted ?? spec.Device);
        var dtype = Devices.DefaultDtype(device, spec.Training.Bf16);
        var estimate = TrainingEstimate.Of(spec, halves: dtype == torch.ScalarType.BFloat16);
        var data = estimate.Data;
        Console.WriteLine($"rows        {data.Used} of {data.Rows} used, {data.Cut} cut, {data.Split} split, {data.Skipped} skipped; the longest has {data.LongestRow} tokens");
        Console.WriteLine($"steps       {estimate.Steps}");
        Console.WriteLine($"tokens      {estimate.Tokens}");
        Console.WriteLine(FormattableString.Invariant($"parameters  {estimate.Parameters.Trainable} of {estimate.Parameters.Base} train"));
        Console.WriteLine(FormattableString.Invariant(
            $"memory      {Mebibytes(estimate.MemoryBytes)} MiB: base {Mebibytes(estimate.WeightBytes)}, optimizer {Mebibytes(estimate.OptimizerBytes)}, largest micro-batch {Mebibytes(estimate.ActivationBytes)}; libtorch's own is not in it"));
        var speed = FlopsPerSecond(device, dtype);
        Console.WriteLine(FormattableString.Invariant(
            $"time        about {TimeSpan.FromSeconds(Math.Ceiling(estimate.Flops / (speed * Efficiency)))} on {device} ({speed / 1e9:F0} GFLOP/s)"));
        return ExitCode.Done;
    }

    private static long Mebibytes(long bytes) => (bytes + (1 << 20) - 1) >> 20;

    /// <summary>How fast the device multiplies matrices.</summary>
    private static double FlopsPerSecond(torch.Device device, torch.ScalarType dtype)
    {
        const int size = 1024;
        using var scope = torch.NewDisposeScope();
        var a = torch.ones([size, size], dtype: dtype, device: device);
        torch.mm(a, a).sum().cpu();
        var (started, count) = (Stopwatch.GetTimestamp(), 0);
        while (Stopwatch.GetElapsedTime(started) < TimeSpan.FromMilliseconds(300))
        {
            torch.mm(a, a).sum().cpu();
            count++;
        }

        return 2.0 * size * size * size * count / Stopwatch.GetElapsedTime(started).TotalSeconds;
    }
}
