using System.Diagnostics;
using System.Globalization;
using System.Text.Json;
using PeftServer.Engine;
using PeftServer.Engine.Native;
using PeftServer.Engine.Training;

namespace PeftServer.Cli.Bench;

/// <summary>Estimates of runs beside what they take: both are processes of their own, as a person would start them.</summary>
/// <param name="program">The program and what comes before its command.</param>
/// <param name="device">cpu or cuda:N.</param>
internal sealed class EstimateBench(IReadOnlyList<string> program, string device)
{
    /// <summary>A case's estimate, and what the run took.</summary>
    public (RunFigures Predicted, RunFigures Measured) Run(EstimateCase @case, string root, int steps)
    {
        var spec = @case.Write(root, steps, device);
        return (Estimate(spec), Train(spec));
    }

    public static string Heading => $"{"run",-10} {"memory, MiB: told",18} {"held",7} {"error",7} {"steps",12} {"tokens",16} {"seconds",14}";

    public static string Line(string name, RunFigures told, RunFigures held) => string.Create(CultureInfo.InvariantCulture,
        $"{name,-10} {told.MemoryBytes >> 20,18} {held.MemoryBytes >> 20,7} {Error(told, held),7:+0.0%;-0.0%} {$"{told.Steps}/{held.Steps}",12} {$"{told.Tokens}/{held.Tokens}",16} {$"{told.Seconds:0.0}/{held.Seconds:0.0}",14}   {Parts(told)}");

    /// <summary>By how much the estimate is above the memory that was held.</summary>
    public static double Error(RunFigures told, RunFigures held) => ((double)told.MemoryBytes / held.MemoryBytes) - 1;

    private static string Parts(RunFigures told) => told.Memory is not { } memory ? "" : string.Create(CultureInfo.InvariantCulture,
        $"program {memory.Runtime >> 20}, base {memory.Weights >> 20}, trained {memory.Trained >> 20}, activations {memory.Activations >> 20}; {memory.Step}");

    private RunFigures Estimate(string spec)
    {
        using var process = Start(["estimate", "--spec", spec, "--json"]);
        var complaints = process.StandardError.ReadToEndAsync();
        var told = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return process.ExitCode == 0
            ? JsonSerializer.Deserialize<RunFigures>(told, PeftJson.Options)!
            : throw new CommandException($"The estimate of {spec} ended with code {process.ExitCode}: {complaints.Result}", ExitCode.Failed);
    }

    private RunFigures Train(string spec)
    {
        using var process = Start(["train", "--spec", spec]);
        var (reading, complaints) = (process.StandardOutput.ReadToEndAsync(), process.StandardError.ReadToEndAsync());
        var peak = 0L;
        while (!process.WaitForExit(20))
        {
            peak = Math.Max(peak, ProcessMemory.PeakOf(process.Id)); // it only rises, so the last look before the end is the peak
        }

        if (process.ExitCode != 0)
        {
            throw new CommandException($"The run of {spec} ended with code {process.ExitCode}: {complaints.Result} {reading.Result}", ExitCode.Failed);
        }

        var steps = File.ReadLines(Path.Combine(Path.GetDirectoryName(spec)!, TrainingEvent.FileName))
            .Select(line => JsonSerializer.Deserialize<TrainingEvent>(line, PeftJson.Options)!).Where(written => written.Type is TrainingEventType.Metrics).ToList();
        double Last(string name) => steps[^1].Data!.TryGetValue(name, out var value) ? value.GetDouble() : 0;
        var memory = device == "cpu" ? Math.Max(peak, (long)Last("memory_peak_bytes")) : (long)Last("device_memory_peak_bytes");
        return new(memory, steps.Count, (long)Last("tokens"), Last("tokens") / Last("tokens_per_second"));
    }

    private Process Start(IEnumerable<string> arguments) => Process.Start(new ProcessStartInfo(program[0], [.. program.Skip(1), .. arguments])
    {
        RedirectStandardOutput = true,
        RedirectStandardError = true,
    })!;
}
