using System.Runtime.InteropServices;

namespace PeftServer.Engine.Native;

/// <summary>dlopen with the flags libtorch needs: .NET's own loader opens libraries locally, and they must see each other.</summary>
internal static partial class DynamicLinker
{
    private const int Lazy = 0x1;
    private const int Global = 0x100;

    // Bound before its first real use: the stub that binds it would clear the message it is to read.
    private static readonly nint Bound = LastError();

    public static nint Open(string path) =>
        TryOpen(path, out var fault) is var handle and not 0
            ? handle
            : throw new TorchLoadException($"{path} does not load: {fault}");

    public static nint TryOpen(string path, out string fault)
    {
        _ = Bound;
        var handle = Open(path, Lazy | Global);
        fault = handle == 0 ? Marshal.PtrToStringUTF8(LastError()) ?? "no reason given" : "";
        return handle;
    }

    /// <summary>
    /// Gives native code an environment variable where it has none of that name. .NET's own call changes only what .NET sees.
    /// </summary>
    public static void SetDefault(string name, string value) => _ = SetEnvironment(name, value, overwrite: 0);

    [LibraryImport("libc", EntryPoint = "setenv", StringMarshalling = StringMarshalling.Utf8)]
    private static partial int SetEnvironment(string name, string value, int overwrite);

    [LibraryImport("libc", EntryPoint = "dlopen", StringMarshalling = StringMarshalling.Utf8)]
    private static partial nint Open(string path, int flags);

    [LibraryImport("libc", EntryPoint = "dlerror")]
    private static partial nint LastError();
}
