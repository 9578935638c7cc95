using System.Runtime.InteropServices;
using System.Text;

namespace PeftServer.Engine.Native;

/// <summary>Compiles CUDA C++ at start with NVIDIA's library that comes beside libtorch: no compiler is installed for it.</summary>
internal static unsafe partial class Nvrtc
{
    private static readonly string[] Names = ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"];

    static Nvrtc() => NativeLibraryHandle = Find();

    internal static nint NativeLibraryHandle { get; }

    /// <summary>Whether the library is there.</summary>
    public static bool IsAvailable => NativeLibraryHandle != 0;

    /// <summary>Machine code of <paramref name="source"/> for an architecture such as <c>sm_90</c>. Throws with the compiler's log.</summary>
    public static byte[] Compile(string source, string architecture)
    {
        Check(nvrtcCreateProgram(out var program, source, "peftserver.cu", 0, 0, 0), nameof(nvrtcCreateProgram));
        try
        {
            string[] options = [$"--gpu-architecture={architecture}", "--std=c++17"];
            if (nvrtcCompileProgram(program, options.Length, options) != 0)
            {
                throw new TorchException($"NVRTC does not compile the kernels: {Log(program)}");
            }

            Check(nvrtcGetCUBINSize(program, out var size), nameof(nvrtcGetCUBINSize));
            var image = new byte[size];
            fixed (byte* bytes = image)
            {
                Check(nvrtcGetCUBIN(program, bytes), nameof(nvrtcGetCUBIN));
            }

            return image;
        }
        finally
        {
            _ = nvrtcDestroyProgram(ref program);
        }
    }

    private static string Log(nint program)
    {
        Check(nvrtcGetProgramLogSize(program, out var size), nameof(nvrtcGetProgramLogSize));
        var log = new byte[size];
        fixed (byte* bytes = log)
        {
            Check(nvrtcGetProgramLog(program, bytes), nameof(nvrtcGetProgramLog));
        }

        return Encoding.UTF8.GetString(log).TrimEnd('\0', '\n');
    }

    /// <summary>In libtorch's folder, in the NVIDIA packages beside a Python's torch, or where the system looks.</summary>
    private static nint Find()
    {
        var torch = TorchLoader.LoadedFrom ?? "";
        var packages = Path.GetFullPath(Path.Combine(torch, "..", "..", "nvidia"));
        var folders = Directory.Exists(packages) ? Directory.GetDirectories(packages).Select(package => Path.Combine(package, "lib")) : [];
        foreach (var path in folders.Prepend(torch).SelectMany(folder => Names.Select(name => Path.Combine(folder, name))).Concat(Names))
        {
            if (NativeLibrary.TryLoad(path, out var handle))
            {
                return handle;
            }
        }

        return 0;
    }

    private static void Check(int code, string call)
    {
        if (code != 0)
        {
            throw new TorchException($"NVRTC refused {call} with code {code}.");
        }
    }

    [LibraryImport("nvrtc", StringMarshalling = StringMarshalling.Utf8)]
    private static partial int nvrtcCreateProgram(out nint program, string source, string name, int headers, nint sources, nint names);

    [LibraryImport("nvrtc", StringMarshalling = StringMarshalling.Utf8)]
    private static partial int nvrtcCompileProgram(nint program, int count, string[] options);

    [LibraryImport("nvrtc")]
    private static partial int nvrtcGetCUBINSize(nint program, out nuint size);

    [LibraryImport("nvrtc")]
    private static partial int nvrtcGetCUBIN(nint program, byte* image);

    [LibraryImport("nvrtc")]
    private static partial int nvrtcGetProgramLogSize(nint program, out nuint size);

    [LibraryImport("nvrtc")]
    private static partial int nvrtcGetProgramLog(nint program, byte* log);

    [LibraryImport("nvrtc")]
    private static partial int nvrtcDestroyProgram(ref nint program);
}
