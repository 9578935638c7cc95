using PeftServer.Engine.Native;
using PeftServer.Engine.Quantization;

namespace PeftServer.Engine.Training;

/// <summary>
/// What a run uses of its machine, for every metrics event: memory of the process (<c>memory_bytes</c>, <c>memory_peak_bytes</c>), of its GPU as libtorch's allocator accounts
/// for it (<c>device_memory_bytes</c> of tensors, their <c>device_memory_peak_bytes</c>, <c>device_memory_reserved_bytes</c> held for them), and <c>mfu</c>, the share of the
/// device's peak that the model's own operations make (<see cref="TrainingFlops"/>). The peak is the vendor's figure, or the one that the spec gives; a CPU has none
/// of its own, as what it reaches depends on its clock under load and on who shares it, so there mfu is told where the spec gives a peak.
/// </summary>
internal sealed class RunMeter
{
    private readonly int? _gpu;
    private readonly double? _peak; // operations a second

    public RunMeter(Device device, ScalarType dtype, BaseQuantization quantization, double? teraflops, Action<string> report)
    {
        _gpu = device.type is DeviceType.CUDA ? device.index : null;
        _peak = teraflops * 1e12 ?? (_gpu is { } gpu ? PeakFlops.Of(CudaDriver.Name(gpu), dtype, quantization) : null);
        if (_gpu is not null)
        {
            report(_peak is { } known
                ? FormattableString.Invariant($"{CudaDriver.Name(device.index)}: mfu is a share of {known / 1e12:0.#} TFLOP/s.")
                : $"{CudaDriver.Name(device.index)} is not among the GPUs whose peak is known: mfu is left out. Give peak_tflops in the spec to have it.");
        }
    }

    public IEnumerable<(string Name, object Value)> Read(double flopsPerSecond)
    {
        if (_peak is { } peak)
        {
            yield return ("mfu", flopsPerSecond / peak);
        }

        yield return ("memory_bytes", ProcessMemory.Resident);
        yield return ("memory_peak_bytes", ProcessMemory.Peak);
        if (_gpu is { } gpu && CudaAllocator.Read(gpu) is { } memory)
        {
            yield return ("device_memory_bytes", memory.Allocated);
            yield return ("device_memory_peak_bytes", memory.AllocatedPeak);
            yield return ("device_memory_reserved_bytes", memory.Reserved);
        }
    }
}
