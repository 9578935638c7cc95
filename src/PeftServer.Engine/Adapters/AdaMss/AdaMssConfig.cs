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

    /// <summary>
    /// Adaptive subspace allocation: while it trains, groups that matter least stop training and stay as they are, until about
    /// asa_target_subspaces of all modules' groups are left. A group matters by |w·g| and by how much that wavers, both averaged over steps.
    /// </summary>
    public bool UseAsa { get; init; }

    /// <summary>With use_asa: how many groups the schedule comes down to, those of all modules counted. One fewer goes on, as in PEFT.</summary>
    [Range(1, int.MaxValue)]
    public int AsaTargetSubspaces { get; init; } = 50;

    /// <summary>With use_asa: the first step, from 0, whose gradients count and at which groups may stop.</summary>
    [Range(0, int.MaxValue)]
    public int InitWarmup { get; init; } = 50;

    /// <summary>With use_asa: the step at which the schedule has come down to its target, and the last at which groups may stop.</summary>
    [Range(1, int.MaxValue)]
    public int FinalWarmup { get; init; } = 1000;

    /// <summary>With use_asa: groups are chosen at every step that this divides; then averages begin anew.</summary>
    [Range(1, int.MaxValue)]
    public int MaskInterval { get; init; } = 100;

    /// <summary>With use_asa: how much of the average of |w·g| stays at a step.</summary>
    [Range(0.0, 1.0)]
    public double AsaImportanceBeta { get; init; } = 0.85;

    /// <summary>With use_asa: how much of the average of its wavering stays at a step.</summary>
    [Range(0.0, 1.0)]
    public double AsaUncertaintyBeta { get; init; } = 0.85;

    /// <summary>With use_asa: the schedule comes down by this power of what is left of it; 1 is a straight line.</summary>
    [Range(1e-6, 1e6)]
    public double AsaScheduleExponent { get; init; } = 3;

    /// <summary>Adapt only these layers; needs a list in target_modules.</summary>
    public OneOrMany<int>? LayersToTransform { get; init; }

    /// <summary>Name of the list of layers, where it is not the usual one.</summary>
    public OneOrMany<string>? LayersPattern { get; init; }

    public override IEnumerable<ValidationResult> Validate()
    {
        if (UseAsa && InitWarmup >= FinalWarmup)
        {
            yield return new ValidationResult($"use_asa needs init_warmup ({InitWarmup}) before final_warmup ({FinalWarmup}). Raise final_warmup.", ["init_warmup"]);
        }
    }

    public override Adapter CreateAdapter(PretrainedModel model) => UseAsa ? new AdaMssAdapter((AdaMssConfig)Filled(model), model) : base.CreateAdapter(model);

    internal override MethodParts CreateParts(IReadOnlyList<Site> sites, PretrainedModel model) =>
        MethodParts.Each(sites, site => new AdaMssProjection(this, site));
}
