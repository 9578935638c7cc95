using System.Collections;
using System.Collections.Concurrent;
using System.Diagnostics;
using System.Globalization;
using System.Reflection;
using Microsoft.Extensions.Options;
using PeftServer.Core.Hosting;
using PeftServer.Core.Jobs;
using PeftServer.Worker.Devices;

namespace PeftServer.Worker.Training;

/// <summary>Starts trainers: the command that a person can run by hand, supervised.</summary>
internal sealed class TrainerLauncher : IDisposable
{
    // The child writes into files, not into pipes: a worker that stands still must not stall it.
    private const string IntoFiles = """out=$1 err=$2; shift 2; exec "$@" >>"$out" 2>>"$err" """;

    // All that a trainer may know of this process' environment: no connection string, no key.
    private static readonly string[] Passed =
        ["PATH", "HOME", "USER", "LANG", "LC_", "TZ", "TMPDIR", "DOTNET_", "LD_LIBRARY_PATH", "XDG_", "HF_", "PEFTSERVER_DATA", "CUDA", "NVIDIA_", "NCCL_", "OMP_", "MKL_", "Torch__"];

    private readonly BlockingCollection<(ProcessStartInfo Start, TaskCompletionSource<Process> Started)> _requests = [];
    private readonly WorkerOptions _options;
    private readonly TorchOptions _torch;

    public TrainerLauncher(IOptions<WorkerOptions> options, IOptions<TorchOptions> torch)
    {
        (_options, _torch) = (options.Value, torch.Value);
        new Thread(Serve) { IsBackground = true, Name = "trainer launcher" }.Start();
    }

    public async Task<TrainerProcess> StartAsync(RunFolder run, TrainingDevice device)
    {
        var started = new TaskCompletionSource<Process>(TaskCreationOptions.RunContinuationsAsynchronously);
        _requests.Add((StartInfo(run, device), started));
        return new TrainerProcess(await started.Task, run);
    }

    public void Dispose() => _requests.CompleteAdding();

    // One thread that lives as long as this process: the kernel sends the parent-death signal when the *thread* that forked ends.
    private void Serve()
    {
        foreach (var (start, started) in _requests.GetConsumingEnumerable())
        {
            try
            {
                started.SetResult(Process.Start(start)!);
            }
            catch (Exception e)
            {
                started.SetException(e);
            }
        }
    }

    private ProcessStartInfo StartInfo(RunFolder run, TrainingDevice device)
    {
        string[] command =
        [
            .. Alone(), .. device.Gpu is null ? ["nice", "-n", "10"] : Array.Empty<string>(), // training on the CPU must not starve the lease
            .. Program(), "train", "--spec", run.Spec, "--supervised",
        ];
        var start = new ProcessStartInfo("/bin/sh", ["-c", IntoFiles, "sh", run.Output, run.Errors, .. command])
        {
            WorkingDirectory = run.Path,
            RedirectStandardInput = true,
        };
        SetEnvironment(start, device);
        return start;
    }

    private void SetEnvironment(ProcessStartInfo start, TrainingDevice device)
    {
        start.Environment.Clear();
        foreach (DictionaryEntry variable in Environment.GetEnvironmentVariables())
        {
            if (Passed.Any(name => ((string)variable.Key).StartsWith(name, StringComparison.Ordinal)))
            {
                start.Environment[(string)variable.Key] = (string?)variable.Value;
            }
        }

        if (_torch.LibraryPath is { Length: > 0 } library)
        {
            start.Environment["Torch__LibraryPath"] = library;
        }

        if (device.Gpu is { } gpu)
        {
            start.Environment["CUDA_VISIBLE_DEVICES"] = Visible(gpu);
        }

        if (_options.TrainerThreads is { } threads)
        {
            start.Environment["OMP_NUM_THREADS"] = start.Environment["MKL_NUM_THREADS"] = threads.ToString(CultureInfo.InvariantCulture);
        }
    }

    // Where this process was given some GPUs, its own cuda:N is the N-th of those.
    private static string Visible(int gpu) =>
        Environment.GetEnvironmentVariable("CUDA_VISIBLE_DEVICES")?.Split(',', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries) is { Length: > 0 } given && gpu < given.Length
            ? given[gpu]
            : gpu.ToString(CultureInfo.InvariantCulture);

    // In a session of its own, so that a Ctrl-C at this process' terminal is this process' to handle; killed when we are.
    private static string[] Alone() =>
    [
        .. File.Exists("/usr/bin/setsid") ? ["/usr/bin/setsid"] : Array.Empty<string>(),
        .. File.Exists("/usr/bin/setpriv") ? ["/usr/bin/setpriv", "--pdeathsig", "KILL"] : Array.Empty<string>(),
    ];

    private string[] Program() => _options.TrainerCommand is { Length: > 0 } configured ? configured : ThisProgram();

    private static string[] ThisProgram()
    {
        var host = Environment.ProcessPath ?? throw new InvalidOperationException("This process has no path. Set Worker:TrainerCommand.");
        return Path.GetFileNameWithoutExtension(host) == "dotnet" && Assembly.GetEntryAssembly()?.Location is { Length: > 0 } assembly
            ? [host, assembly]
            : [host];
    }
}
