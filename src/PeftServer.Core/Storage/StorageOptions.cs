using System.ComponentModel.DataAnnotations;

namespace PeftServer.Core.Storage;

/// <summary>Section <c>Storage</c>: the artifact store.</summary>
public sealed class StorageOptions
{
    public const string Section = "Storage";

    /// <summary>Folder of the store, shared by all hosts. Default: <c>artifacts</c> in the data folder.</summary>
    [Required]
    public string Root { get; set; } = "";

    /// <summary>Folder of local copies; may be emptied at any time. Default: <c>cache</c> in the data folder.</summary>
    [Required]
    public string Cache { get; set; } = "";

    /// <summary>Largest upload.</summary>
    [Range(1, long.MaxValue)]
    public long MaxFileBytes { get; set; } = 512L << 20;

    /// <summary>Largest file of an adapter.</summary>
    [Range(1, long.MaxValue)]
    public long MaxAdapterBytes { get; set; } = 16L << 30;
}
