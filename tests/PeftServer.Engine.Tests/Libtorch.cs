using System.Runtime.CompilerServices;
using PeftServer.Engine.Native;

namespace PeftServer.Engine.Tests;

/// <summary>Loads libtorch before the first test touches it.</summary>
internal static class Libtorch
{
    [ModuleInitializer]
    public static void Load() => TorchLoader.Load();
}
