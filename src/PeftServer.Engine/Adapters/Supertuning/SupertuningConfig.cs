using System.ComponentModel.DataAnnotations;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters.Supertuning;

/// <summary>
/// SuperTuning: the values of the weight that are largest (or smallest) train in place; with r a LoRA beside them.
/// <see href="https://arxiv.org/abs/2607.09287">The paper</see>.
/// </summary>
public sealed record SupertuningConfig : TargetedConfig
{
    /// <summary>Share of the values that stay frozen.</summary>
    [Range(0.0, 0.999999)]
    public double Sparsity { get; init; } = 0.99;

    /// <summary>Train the largest values; false: the smallest.</summary>
    public bool SelectTop { get; init; } = true;

    /// <summary>Rank of the LoRA beside the values; absent: none.</summary>
    [Range(1, 4096)]
    public int? R { get; init; }

    /// <summary>The LoRA is scaled by lora_alpha / r.</summary>
    [Range(1e-6, 1e6)]
    public double? LoraAlpha { get; init; }

    /// <summary>Chance that an input of the update is dropped in training.</summary>
    [Range(0.0, 0.99)]
    public double LoraDropout { get; init; }

    /// <summary>Start as the method prescribes; false: at random, for tests.</summary>
    public bool InitWeights { get; init; } = true;

    /// <summary>Save the places beside the values; false: find them again in the base.</summary>
    public bool SavePrecomputedIndices { get; init; } = true;

    internal override MethodParts CreateParts(IReadOnlyList<Site> sites, PretrainedModel model) =>
        MethodParts.Each(sites, site => new SupertuningProjection(this, site));
}
