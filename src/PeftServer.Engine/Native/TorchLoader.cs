using System.Reflection;
using System.Runtime.InteropServices;

namespace PeftServer.Engine.Native;

/// <summary>
/// Loads libtorch and TorchSharp's shim, once, from a folder of the operator's choice. It must be called before the first
/// touch of <see cref="torch"/>, and only by processes that use tensors.
/// <para>
/// The shim of TorchSharp 0.107 asks for <c>GLIBCXX_3.4.32</c>, which Debian 12, Ubuntu 22.04 and RHEL 9 lack. The one
/// symbol of that version is never called, so where the shim does not load, a copy is loaded in which that one
/// requirement is marked weak.
/// </para>
/// </summary>
public static class TorchLoader
{
    private static readonly Lock Gate = new();
    private static string? _loadedFrom;

    /// <summary>Folder that libtorch was loaded from; null before <see cref="Load"/>.</summary>
    public static string? LoadedFrom => _loadedFrom;

    internal static nint C10 { get; private set; }

    internal static nint TorchCpu { get; private set; }

    /// <summary>Handle of libtorch_cuda; 0 where this libtorch has none or it does not load.</summary>
    internal static nint TorchCuda { get; private set; }

    internal static nint C10Cuda { get; private set; }

    internal static nint Shim { get; private set; }

    /// <summary>Why libtorch_cuda did not load although it is there; null otherwise.</summary>
    public static string? CudaFault { get; private set; }

    /// <summary>
    /// Loads libtorch. Later calls do nothing. <paramref name="folder"/>: the folder that holds <c>libtorch.so</c>, such as
    /// <c>site-packages/torch/lib</c>; absent, <c>PEFTSERVER_TORCH</c>, then <c>torch/</c> beside the program, then the
    /// NuGet package this build was made with. Throws <see cref="TorchLoadException"/> with the remedy.
    /// </summary>
    public static void Load(string? folder = null)
    {
        lock (Gate)
        {
            if (_loadedFrom is not null)
            {
                return;
            }

            // Blocks of every size in one growing segment: batches of varying length do not tear the memory to pieces.
            DynamicLinker.SetDefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True");
            var from = Find(folder);
            C10 = DynamicLinker.Open(Path.Combine(from, "libc10.so"));
            TorchCpu = DynamicLinker.Open(Path.Combine(from, "libtorch_cpu.so"));
            LoadCuda(from);
            DynamicLinker.Open(Path.Combine(from, "libtorch.so"));
            Shim = LoadShim(Path.Combine(AppContext.BaseDirectory, "native", "libLibTorchSharp.so"));
            NativeLibrary.SetDllImportResolver(typeof(TorchLoader).Assembly, Resolve);
            _loadedFrom = from;
        }

        torch.InitializeDeviceType(DeviceType.CPU);
    }

    private static void LoadCuda(string from)
    {
        var cuda = Path.Combine(from, "libtorch_cuda.so");
        if (!File.Exists(cuda))
        {
            return;
        }

        try
        {
            C10Cuda = DynamicLinker.Open(Path.Combine(from, "libc10_cuda.so"));
            TorchCuda = DynamicLinker.Open(cuda);
        }
        catch (TorchLoadException e)
        {
            CudaFault = e.Message; // a CPU host with a CUDA libtorch still computes
        }
    }

    private static nint LoadShim(string shim)
    {
        if (!File.Exists(shim))
        {
            throw new TorchLoadException($"{shim} is missing. It comes with the TorchSharp package: publish the program again.");
        }

        if (DynamicLinker.TryOpen(shim, out var fault) is var handle and not 0)
        {
            return handle;
        }

        if (!fault.Contains(ElfVersionNeeds.MissingOnOldSystems, StringComparison.Ordinal))
        {
            throw new TorchLoadException($"TorchSharp's native part does not load: {fault}");
        }

        return DynamicLinker.Open(PatchedCopy(shim));
    }

    /// <summary>A copy of the shim that loads with an older libstdc++, kept for the next start.</summary>
    private static string PatchedCopy(string shim)
    {
        var cache = Environment.GetEnvironmentVariable("XDG_CACHE_HOME") is { Length: > 0 } xdg
            ? Path.Combine(xdg, "peftserver")
            : Path.Combine(Path.GetTempPath(), $"peftserver-{Environment.UserName}");
        try
        {
            Directory.CreateDirectory(cache, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
            var patched = ElfVersionNeeds.Weaken(File.ReadAllBytes(shim), ElfVersionNeeds.MissingOnOldSystems);
            var temporary = Path.Combine(cache, $"libLibTorchSharp.{Environment.ProcessId}.tmp");
            var copy = Path.Combine(cache, "libLibTorchSharp.so");
            File.WriteAllBytes(temporary, patched);
            File.Move(temporary, copy, overwrite: true);
            return copy;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new TorchLoadException(
                $"This system's libstdc++ is older than {ElfVersionNeeds.MissingOnOldSystems}, and the adjusted copy of "
                + $"TorchSharp's native part cannot be written to {cache}: {e.Message} Set XDG_CACHE_HOME to a writable folder.", e);
        }
    }

    private static string Find(string? folder)
    {
        var explicitFolder = folder ?? Environment.GetEnvironmentVariable("PEFTSERVER_TORCH");
        if (!string.IsNullOrEmpty(explicitFolder))
        {
            return File.Exists(Path.Combine(explicitFolder, "libtorch.so"))
                ? Path.GetFullPath(explicitFolder)
                : throw new TorchLoadException(
                    $"There is no libtorch.so in {explicitFolder}. Torch:LibraryPath (or PEFTSERVER_TORCH) must name the "
                    + "folder that holds it, such as site-packages/torch/lib of a Python installation.");
        }

        string?[] places =
        [
            Path.Combine(AppContext.BaseDirectory, "torch"),
            Path.Combine(AppContext.BaseDirectory, "runtimes", "linux-x64", "native"),
            typeof(TorchLoader).Assembly.GetCustomAttributes<AssemblyMetadataAttribute>()
                .FirstOrDefault(entry => entry.Key == "LibTorchFolder")?.Value,
        ];
        return places.FirstOrDefault(place => place is not null && File.Exists(Path.Combine(place, "libtorch.so")))
            ?? throw new TorchLoadException(
                $"libtorch was not found in {string.Join(", ", places.Where(place => place is not null))}. Set "
                + "Torch:LibraryPath (or PEFTSERVER_TORCH) to the folder that holds libtorch.so, or build the program again.");
    }

    private static nint Resolve(string name, Assembly assembly, DllImportSearchPath? path) => name switch
    {
        "torch_cpu" => TorchCpu,
        "torch_cuda" => TorchCuda,
        "c10_cuda" => C10Cuda,
        "LibTorchSharp" => Shim,
        "nvrtc" => Nvrtc.NativeLibraryHandle,
        _ => 0,
    };
}

/// <summary>libtorch does not load; the message says why and what to do.</summary>
public sealed class TorchLoadException : Exception
{
    public TorchLoadException(string message)
        : base(message)
    {
    }

    public TorchLoadException(string message, Exception inner)
        : base(message, inner)
    {
    }
}
