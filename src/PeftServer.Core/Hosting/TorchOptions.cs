namespace PeftServer.Core.Hosting;

/// <summary>Section <c>Torch</c>, for the processes that touch tensors.</summary>
public sealed class TorchOptions
{
    public const string Section = "Torch";

    /// <summary>Folder with libtorch.so; absent: the one this program was built with.</summary>
    public string? LibraryPath { get; set; }
}
