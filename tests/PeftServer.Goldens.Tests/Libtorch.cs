using System.Runtime.CompilerServices;
using PeftServer.Engine.Native;

namespace PeftServer.Goldens.Tests;

/// <summary>Loads libtorch before the first test touches it, whichever that is.</summary>
internal static class Libtorch
{
    [ModuleInitializer]
    public static void Load() => TorchLoader.Load();
}
