using System.ComponentModel.DataAnnotations;

namespace PeftServer.Inference;

/// <summary>Section <c>Inference</c>, what only the inference process reads of it.</summary>
public sealed class InferenceHostOptions
{
    public const string Section = "Inference";
    public const string DefaultUrl = "http://127.0.0.1:0";

    /// <summary>Where to listen; port 0 takes a free one.</summary>
    [Required]
    public string Url { get; set; } = DefaultUrl;

    /// <summary>How the api reaches this process, where that differs from <see cref="Url"/> (containers).</summary>
    public string? AdvertisedUrl { get; set; }

    /// <summary>Sequences that one base serves at once.</summary>
    [Range(1, 4096)]
    public int MaxSequences { get; set; } = 64;

    /// <summary>A base that nobody asked for in so many minutes leaves the memory.</summary>
    [Range(1, 100_000)]
    public int IdleMinutes { get; set; } = 30;
}
