using System.ComponentModel.DataAnnotations;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters.Road;

/// <summary>
/// RoAd: pairs of outputs are rotated by trained angles and scaled; _1, _2, _4 share fewer and fewer of them.
/// <see href="https://arxiv.org/abs/2409.00119">Liao and Monz 2024</see>.
/// </summary>
public sealed record RoadConfig : TargetedConfig
{
    /// <summary>road_1: an angle and a scale a pair; road_2: for each output; road_4: two of each for each output.</summary>
    [AllowedValues("road_1", "road_2", "road_4")]
    public string Variant { get; init; } = "road_1";

    /// <summary>Outputs in a group, whose two halves are paired; even, divides the outputs.</summary>
    [Range(2, 65536)]
    public int GroupSize { get; init; } = 64;

    /// <summary>Start as the method prescribes; false: at random, for tests.</summary>
    public bool InitWeights { get; init; } = true;

    internal override MethodParts CreateParts(IReadOnlyList<Site> sites, PretrainedModel model) =>
        MethodParts.Each(sites, site => new RoadProjection(this, site));
}
