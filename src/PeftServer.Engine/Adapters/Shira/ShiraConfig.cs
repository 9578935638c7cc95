using System.ComponentModel.DataAnnotations;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters.Shira;

/// <summary>
/// SHiRA: r·(in + out) single values of the weight train, at random places.
/// <see href="https://arxiv.org/abs/2406.13175">Bhardwaj et al. 2024</see>.
/// </summary>
public sealed record ShiraConfig : TargetedConfig
{
    /// <summary>As many values train as an update of this rank has.</summary>
    [Range(1, 4096)]
    public int R { get; init; } = 32;

    /// <summary>The base weight is stored (in, out). The layer knows by itself here.</summary>
    public bool FanInFanOut { get; init; }

    /// <summary>How places are picked: random.</summary>
    [AllowedValues("random")]
    public string MaskType { get; init; } = "random";

    /// <summary>Seed of the places; absent: any.</summary>
    public long? RandomSeed { get; init; }

    /// <summary>Start as the method prescribes; false: at random, for tests.</summary>
    public bool InitWeights { get; init; } = true;

    internal override MethodParts CreateParts(IReadOnlyList<Site> sites, PretrainedModel model) =>
        MethodParts.Each(sites, site => new ShiraProjection(this, site));
}
