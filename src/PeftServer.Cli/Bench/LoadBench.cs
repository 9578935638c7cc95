using System.Diagnostics;
using System.Globalization;
using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using TorchSharp;
using static TorchSharp.torch;

namespace PeftServer.Cli.Bench;

/// <summary>How fast a model loads and how much of the host's memory that takes at most, every weight looked at once: views of a file count when they are.</summary>
internal static class LoadBench
{
    /// <summary>Loads <paramref name="folder"/>; <paramref name="dtype"/> null: bfloat16 on a GPU, float32 on a CPU.</summary>
    public static Dictionary<string, object> Run(string folder, string deviceName, ScalarType? dtype)
    {
        var device = Devices.Parse(deviceName);
        using (zeros([1], device: device))
        {
            // what libtorch takes for itself on the device is not the model's
        }

        var wanted = dtype ?? (device.type is DeviceType.CUDA ? ScalarType.BFloat16 : ScalarType.Float32);
        var (before, watch) = (Status("VmRSS"), Stopwatch.StartNew());
        using var model = PretrainedModel.Load(folder, device, wanted);
        foreach (var weight in model.Weights())
        {
            using var scope = NewDisposeScope();
            weight.Value.sum().to(ScalarType.Float32).item<float>();
        }

        if (device.type is DeviceType.CUDA)
        {
            cuda.synchronize(device);
        }

        var (seconds, bytes) = (watch.Elapsed.TotalSeconds, model.Weights().Sum(weight => weight.ElementCount * weight.Value.element_size()));
        return new()
        {
            ["case"] = $"load:{device.type.ToString().ToLowerInvariant()}:{wanted.ToString().ToLowerInvariant()}",
            ["weights_bytes"] = bytes,
            ["seconds"] = Math.Round(seconds, 3),
            ["gb_per_second"] = Math.Round(bytes / seconds / 1e9, 3),
            ["host_bytes_before"] = before,
            ["host_bytes_at_most"] = Status("VmHWM"),
            ["host_anonymous_bytes"] = Status("RssAnon"),
            ["host_file_bytes"] = Status("RssFile"),
        };
    }

    /// <summary>Bytes that the kernel says of this process; 0 where it says nothing.</summary>
    private static long Status(string field)
    {
        const string Path = "/proc/self/status";
        var line = File.Exists(Path) ? File.ReadLines(Path).FirstOrDefault(line => line.StartsWith($"{field}:", StringComparison.Ordinal)) : null;
        return line is null ? 0 : long.Parse(line.Split(':')[1].Replace("kB", "", StringComparison.Ordinal).Trim(), CultureInfo.InvariantCulture) * 1024;
    }
}
