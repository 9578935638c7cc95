using System.ComponentModel.DataAnnotations;

namespace PeftServer.Core.Inference;

/// <summary>Section <c>Inference</c>.</summary>
public sealed class InferenceOptions
{
    public const string Section = "Inference";

    /// <summary>auto, cpu or cuda:N.</summary>
    [RegularExpression("auto|cpu|cuda:[0-9]{1,2}")]
    public string Device { get; set; } = "auto";

    /// <summary>Share of the device's memory that may be used; training on the same one needs the rest.</summary>
    [Range(0.05, 1.0)]
    public double MemoryFraction { get; set; } = 0.9;

    /// <summary>Known to the api and the inference hosts alone; the only key that inference takes.</summary>
    public string? InternalKey { get; set; }
}
