using System.Runtime.InteropServices;

namespace PeftServer.Engine.Native;

/// <summary>NVIDIA's libraries that come with a CUDA libtorch.</summary>
internal static class CudaPackages
{
    /// <summary>
    /// The first library of these names in libtorch's folder, in the NVIDIA packages beside a Python's torch, or where the system looks; 0 where
    /// there is none.
    /// </summary>
    public static nint Find(IReadOnlyList<string> names)
    {
        var torch = TorchLoader.LoadedFrom ?? "";
        var packages = Path.GetFullPath(Path.Combine(torch, "..", "..", "nvidia"));
        var folders = Directory.Exists(packages) ? Directory.GetDirectories(packages).Select(package => Path.Combine(package, "lib")) : [];
        foreach (var path in folders.Prepend(torch).SelectMany(folder => names.Select(name => Path.Combine(folder, name))).Concat(names))
        {
            if (NativeLibrary.TryLoad(path, out var handle))
            {
                return handle;
            }
        }

        return 0;
    }
}
