using System.Diagnostics;
using PeftServer.Engine.Native;
using PeftServer.Engine.Training;
using TorchSharp;

namespace PeftServer.Cli;

/// <summary>What a run needs, or needed.</summary>
/// <param name="MemoryBytes">At the peak: of the process on a CPU, of tensors on a GPU.</param>
/// <param name="Steps">Optimizer steps.</param>
/// <param name="Tokens">Tokens through the model.</param>
/// <param name="Seconds">Time of the steps.</param>
internal sealed record RunFigures(long MemoryBytes, int Steps, long Tokens, double Seconds)
{
    /// <summary>The parts of an estimate's memory.</summary>
    public MemoryEstimate? Memory { get; init; }
}

/// <summary>Estimates of runs on the devices of this machine.</summary>
internal static class RunEstimates
{
    /// <summary>Share of the speed of large products that training reaches.</summary>
    private const double Efficiency = 0.4;

    /// <summary>What a run on <paramref name="device"/> will need, and the operations a second that the device makes in large products.</summary>
    public static (TrainingEstimate Estimate, double FlopsPerSecond) Of(TrainingSpec spec, torch.Device device)
    {
        var dtype = Devices.DefaultDtype(device, spec.Training.Bf16);
        var speed = FlopsPerSecond(device, dtype);
        var onGpu = device.type is DeviceType.CUDA;
        var free = onGpu ? CudaDriver.Memory().Free : GC.GetGCMemoryInfo().TotalAvailableMemoryBytes;
        return (TrainingEstimate.Of(spec, device, dtype, () => onGpu ? 0 : ProcessMemory.Resident, free), speed);
    }

    /// <summary>How long the steps will take.</summary>
    public static double Seconds(TrainingEstimate estimate, double flopsPerSecond) => estimate.Flops / (flopsPerSecond * Efficiency);

    /// <summary>How fast the device multiplies matrices.</summary>
    private static double FlopsPerSecond(torch.Device device, torch.ScalarType dtype)
    {
        var size = device.type is DeviceType.CUDA ? 8192 : 512;
        using var scope = torch.NewDisposeScope();
        var a = torch.ones([size, size], dtype: dtype, device: device);
        torch.mm(a, a).sum().cpu();
        var (started, count) = (Stopwatch.GetTimestamp(), 0);
        while (Stopwatch.GetElapsedTime(started) < TimeSpan.FromMilliseconds(300))
        {
            using var inner = torch.NewDisposeScope();
            torch.mm(a, a).sum().cpu();
            count++;
        }

        return 2.0 * size * size * size * count / Stopwatch.GetElapsedTime(started).TotalSeconds;
    }
}
