using System.Diagnostics.CodeAnalysis;
using Microsoft.Extensions.Options;
using PeftServer.Core.Jobs;
using PeftServer.Engine.Native;

namespace PeftServer.Worker.Devices;

/// <summary>The devices of this host, each running one training at a time. Found without libtorch.</summary>
internal sealed class TrainingDevices
{
    private const string Drivers = "/proc/driver/nvidia/gpus";
    private readonly HashSet<TrainingDevice> _free;

    public TrainingDevices(IOptions<WorkerOptions> options) : this(options.Value.Devices, GpusOf(Drivers))
    {
    }

    /// <param name="setting"><c>auto</c>, or a list of <c>cpu</c> and <c>cuda:N</c>.</param>
    /// <param name="gpus">How many GPUs the host has.</param>
    internal TrainingDevices(string setting, int gpus)
    {
        _free = [.. Named(setting, gpus).Select(TrainingDevice.Parse)];
        (Count, Description) = (_free.Count, Describe(_free));
    }

    public int Count { get; }

    /// <summary>What this host has, as the list of workers shows it: <c>cpu 23GiB</c>, <c>2 cuda 139GiB</c>.</summary>
    public string Description { get; }

    public int Free
    {
        get
        {
            lock (_free)
            {
                return _free.Count;
            }
        }
    }

    /// <summary>Takes a device; the caller gives it back. False when all are busy.</summary>
    public bool TryTake([NotNullWhen(true)] out TrainingDevice? device)
    {
        lock (_free)
        {
            device = _free.OrderBy(free => free.Name, StringComparer.Ordinal).FirstOrDefault();
            return device is not null && _free.Remove(device);
        }
    }

    public void Return(TrainingDevice device)
    {
        lock (_free)
        {
            _free.Add(device);
        }
    }

    private static string Describe(IReadOnlyCollection<TrainingDevice> devices) => string.Join(", ", devices
        .GroupBy(device => (IsGpu: device.Gpu is not null, device.MemoryBytes)).OrderBy(kind => kind.Key)
        .Select(kind => (kind.Count() > 1 ? $"{kind.Count()} " : "") + (kind.Key.IsGpu ? "cuda" : "cpu") + (kind.Key.MemoryBytes is { } bytes ? $" {bytes >> 30}GiB" : "")));

    private static IEnumerable<string> Named(string setting, int gpus) => setting switch
    {
        "auto" when gpus > 0 => Enumerable.Range(0, gpus).Select(gpu => $"cuda:{gpu}"),
        "auto" => ["cpu"],
        _ => setting.Split(',', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries),
    };

    private static int GpusOf(string drivers) => Directory.Exists(drivers) ? Directory.GetDirectories(drivers).Length : 0;
}

/// <summary>One device. A trainer sees its GPU alone, by CUDA_VISIBLE_DEVICES, and calls it <c>cuda:0</c>.</summary>
/// <param name="Name">cpu or cuda:N, of the host.</param>
/// <param name="Gpu">N; null for the CPU.</param>
internal sealed record TrainingDevice(string Name, int? Gpu)
{
    /// <summary>What the trainer's spec says.</summary>
    public string NameInTrainer => Gpu is null ? "cpu" : "cuda:0";

    /// <summary>Its memory; for the CPU what the host gives this process and its trainers, a container's limit heeded. Null where it is not known.</summary>
    public long? MemoryBytes => Gpu is { } index ? Nvml.MemoryOf(index)?.Total : GC.GetGCMemoryInfo().TotalAvailableMemoryBytes;

    public static TrainingDevice Parse(string name) =>
        new(name, name.StartsWith("cuda:", StringComparison.Ordinal) ? int.Parse(name.AsSpan(5), System.Globalization.CultureInfo.InvariantCulture) : null);
}
