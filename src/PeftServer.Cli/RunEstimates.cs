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

    /// <summary>What was "auto" in the run's spec, what it is now and why.</summary>
    public IReadOnlyList<string> Picked { get; init; } = [];
}

/// <summary>Estimates of runs on the devices of this machine.</summary>
internal static class RunEstimates
{
    /// <summary>Rows that a product is tried with at most: more are no faster.</summary>
    private const int TriedRows = 8192;

    private static readonly TimeSpan TrialTime = TimeSpan.FromMilliseconds(300);

    /// <summary>What a run on <paramref name="device"/> will need, and what the device does a second in the shapes of the run.</summary>
    public static (TrainingEstimate Estimate, DeviceSpeed Speed) Of(TrainingSpec spec, torch.Device device)
    {
        var dtype = Devices.DefaultDtype(device, spec.Training.Bf16);
        var onGpu = device.type is DeviceType.CUDA;
        _ = Try((64, 64, 64), device, dtype); // what libtorch brings along is part of the process that is measured; and a thread has a context of its GPU from here on
        var free = onGpu ? CudaDriver.Memory().Free : GC.GetGCMemoryInfo().TotalAvailableMemoryBytes;
        var estimate = TrainingEstimate.Of(spec, device, dtype, () => onGpu ? 0 : ProcessMemory.Resident, free);
        return (estimate, Try(estimate.Product, device, dtype));
    }

    /// <summary>How long the steps will take: products and memory traffic one after the other.</summary>
    public static double Seconds(TrainingEstimate estimate, DeviceSpeed speed) => (estimate.Flops / speed.FlopsPerSecond) + (estimate.Traffic / speed.BytesPerSecond);

    /// <summary>Times a product of the run's own shape, and an addition over its rows.</summary>
    private static DeviceSpeed Try((int Rows, int In, int Out) shape, torch.Device device, torch.ScalarType dtype)
    {
        using var scope = torch.NewDisposeScope();
        var rows = Math.Clamp(shape.Rows, 1, TriedRows);
        var x = torch.ones([rows, shape.In], dtype: dtype, device: device);
        var w = torch.ones([shape.Out, shape.In], dtype: dtype, device: device);
        var y = torch.ones([rows, shape.Out], dtype: dtype, device: device);
        var product = Time(() => torch.mm(x, w.t()));
        var addition = Time(() => torch.add(y, y));
        return new DeviceSpeed(2.0 * rows * shape.In * shape.Out / product, 2.0 * y.numel() * y.ElementSize / addition); // read, written
    }

    /// <summary>Seconds of one <paramref name="work"/>, several of which are given to a GPU at once.</summary>
    private static double Time(Func<torch.Tensor> work)
    {
        Repeat(3);
        var (started, count) = (Stopwatch.GetTimestamp(), 0);
        for (var next = 1; Stopwatch.GetElapsedTime(started) < TrialTime; count += next, next = 8)
        {
            Repeat(next);
        }

        return Stopwatch.GetElapsedTime(started).TotalSeconds / count;

        void Repeat(int times)
        {
            using var inner = torch.NewDisposeScope();
            torch.Tensor? last = null;
            for (var i = 0; i < times; i++)
            {
                last?.Dispose();
                last = work();
            }

            last!.flatten().narrow(0, 0, 1).cpu(); // waits for the device
        }
    }
}

/// <summary>What a device does a second in the shapes of a run.</summary>
/// <param name="FlopsPerSecond">Operations in products.</param>
/// <param name="BytesPerSecond">Bytes read and written beside them.</param>
internal readonly record struct DeviceSpeed(double FlopsPerSecond, double BytesPerSecond);
