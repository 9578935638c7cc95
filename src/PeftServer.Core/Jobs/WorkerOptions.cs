using System.ComponentModel.DataAnnotations;

namespace PeftServer.Core.Jobs;

/// <summary>Section <c>Worker</c>.</summary>
public sealed class WorkerOptions
{
    public const string Section = "Worker";

    /// <summary>auto, or a list: <c>cpu</c>, <c>cuda:0,cuda:1</c>. A device runs one job at a time.</summary>
    [RegularExpression(@"auto|(cpu|cuda:[0-9]{1,2})(\s*,\s*(cpu|cuda:[0-9]{1,2}))*")]
    public string Devices { get; set; } = "auto";

    /// <summary>Folder of the run folders, on this host. Default: <c>runs</c> in the data folder.</summary>
    [Required]
    public string Runs { get; set; } = "";

    /// <summary>What starts a trainer, before <c>train --spec …</c>; empty: this very program.</summary>
    public string[] TrainerCommand { get; set; } = [];

    /// <summary>Threads of a trainer on the CPU; absent: the trainer's own choice.</summary>
    [Range(1, 1024)]
    public int? TrainerThreads { get; set; }

    /// <summary>TFLOP/s that a device multiplies at most, for the metric mfu; absent: the vendor's figure of a known GPU, none for a CPU.</summary>
    [Range(1e-3, 1e6)]
    public double? PeakTflops { get; set; }

    /// <summary>How long a job stays with a worker that does not speak, in seconds. Renewed six times in that time.</summary>
    [Range(2, 3600)]
    public int LeaseSeconds { get; set; } = 30;

    /// <summary>Time between two sweeps for expired leases and lost alarms, in seconds.</summary>
    [Range(1, 3600)]
    public int SweepSeconds { get; set; } = 10;

    /// <summary>Days that the run folder of a finished job is kept for a look.</summary>
    [Range(0, 3650)]
    public int KeepRunsDays { get; set; } = 7;

    public TimeSpan Lease => TimeSpan.FromSeconds(LeaseSeconds);
}
