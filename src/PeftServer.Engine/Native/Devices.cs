namespace PeftServer.Engine.Native;

/// <summary>Where tensors live, by the name an operator gives: <c>auto</c>, <c>cpu</c> or <c>cuda:N</c>.</summary>
public static class Devices
{
    /// <summary>
    /// The device that <paramref name="name"/> means; <c>auto</c> is the first GPU where libtorch sees one. Loads libtorch. Throws
    /// <see cref="ArgumentException"/> for another name, and for a GPU that is not there, saying why.
    /// </summary>
    public static Device Parse(string name)
    {
        TorchLoader.Load();
        switch (name)
        {
            case "cpu":
                return CPU;
            case "auto":
                return HasCuda() ? Cuda(0) : CPU;
            case "cuda":
                return HasCuda() ? Cuda(0) : throw NoCuda(name);
        }

        if (!name.StartsWith("cuda:", StringComparison.Ordinal) || !int.TryParse(name["cuda:".Length..], out var index) || index < 0)
        {
            throw new ArgumentException($"'{name}' is no device. Use auto, cpu, or cuda:N with N from 0.");
        }

        if (!HasCuda())
        {
            throw NoCuda(name);
        }

        var count = cuda.device_count();
        return index < count ? Cuda(index) : throw new ArgumentException($"{name} is not there: this host has {count} GPU(s), cuda:0 to cuda:{count - 1}.");
    }

    /// <summary>A type of weights by its name in config.json; null for one that models are not written in.</summary>
    public static ScalarType? DtypeOf(string? name) => name switch
    {
        "float32" => ScalarType.Float32,
        "float16" => ScalarType.Float16,
        "bfloat16" => ScalarType.BFloat16,
        _ => null,
    };

    /// <summary>The type that base weights take on a device: bfloat16 on GPUs, float32 on CPUs unless asked for.</summary>
    public static ScalarType DefaultDtype(Device device, bool? bf16) =>
        bf16 ?? device.type == DeviceType.CUDA ? ScalarType.BFloat16 : ScalarType.Float32;

    /// <summary>
    /// Has the threads that go forward and backward on a GPU make their handles of cuBLAS while there is memory. On a full GPU they cannot be made, and no smaller
    /// batch helps, since libtorch keeps what a larger one took.
    /// </summary>
    public static void Prepare(Device device)
    {
        if (device.type is not DeviceType.CUDA)
        {
            return;
        }

        using var scope = NewDisposeScope();
        var x = ones(8, 8, device: device, requires_grad: true);
        x.mm(x).sum().backward();
    }

    private static bool HasCuda() => TorchLoader.TorchCuda != 0 && cuda.is_available();

    private static Device Cuda(int index)
    {
        InitializeDeviceType(DeviceType.CUDA);
        return device($"cuda:{index}");
    }

    private static ArgumentException NoCuda(string name) => new(
        $"{name} is not there: libtorch in {TorchLoader.LoadedFrom} "
        + (TorchLoader.TorchCuda == 0 ? TorchLoader.CudaFault ?? "has no CUDA part. Set Torch:LibraryPath to one that has" : "sees no GPU. Check nvidia-smi and the driver")
        + ".");
}
