using System.ComponentModel.DataAnnotations;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters.AdaMss;

/// <summary>
/// AdaMSS: the outputs of a weight are put into groups by their coordinates among its first singular directions; each group has a small update
/// of its own within those directions.
/// <see href="https://github.com/huggingface/peft/tree/main/src/peft/tuners/adamss">PEFT's description</see>.
/// </summary>
public sealed record AdaMssConfig : TargetedConfig, ISelectsLayers
{
    /// <summary>Singular directions that are used, from 1 to 65536.</summary>
    [Range(1, 65536)]
    public int R { get; init; } = 100;

    /// <summary>Groups of outputs.</summary>
    [Range(1, 4096)]
    public int NumSubspaces { get; init; } = 5;

    /// <summary>Rank of a group's update.</summary>
    [Range(1, 4096)]
    public int SubspaceRank { get; init; } = 1;

    /// <summary>orthogonal: nothing changes at first; anything else: at random, for tests.</summary>
    public string? InitWeights { get; init; } = "orthogonal";

    /// <summary>Seed of the search for singular directions.</summary>
    [Range(0L, long.MaxValue)]
    public long RandomSeed { get; init; }

    /// <summary>A group's rank by its singular values: those above svd_threshold of the largest count.</summary>
    public bool UseDynamicRank { get; init; }

    /// <summary>See use_dynamic_rank.</summary>
    [Range(0.0, 1.0)]
    public double SvdThreshold { get; init; } = 0.1;

    /// <summary>Switch groups off while it trains. Only its default is supported.</summary>
    [OnlySupported(false)]
    public bool UseAsa { get; init; }

    /// <summary>For use_asa.</summary>
    public int AsaTargetSubspaces { get; init; } = 50;

    /// <summary>For use_asa.</summary>
    public int InitWarmup { get; init; } = 50;

    /// <summary>For use_asa.</summary>
    public int FinalWarmup { get; init; } = 1000;

    /// <summary>For use_asa.</summary>
    public int MaskInterval { get; init; } = 100;

    /// <summary>For use_asa.</summary>
    public double AsaImportanceBeta { get; init; } = 0.85;

    /// <summary>For use_asa.</summary>
    public double AsaUncertaintyBeta { get; init; } = 0.85;

    /// <summary>For use_asa.</summary>
    public double AsaScheduleExponent { get; init; } = 3;

    /// <summary>Adapt only these layers; needs a list in target_modules.</summary>
    public OneOrMany<int>? LayersToTransform { get; init; }

    /// <summary>Name of the list of layers, where it is not the usual one.</summary>
    public OneOrMany<string>? LayersPattern { get; init; }

    internal override MethodParts CreateParts(IReadOnlyList<Site> sites, PretrainedModel model) =>
        MethodParts.Each(sites, site => new AdaMssProjection(this, site));
}
