using System.ComponentModel.DataAnnotations;
using System.Text.Json.Serialization;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters.Lily;

/// <summary>
/// Lily: modules share factors: A with their neighbours, all B of a kind, mixed by a router of each module. The mix is one for all tokens that
/// go through together, as PEFT computes it, so it depends on the batch.
/// <see href="https://arxiv.org/abs/2407.09946">Zhong et al. 2024</see>.
/// </summary>
public sealed record LilyConfig : TargetedConfig, IExcludesModules, ISelectsLayers
{
    /// <summary>Rank of the update, from 1 to 4096.</summary>
    [Range(1, 4096)]
    public int R { get; init; } = 32;

    /// <summary>How many layers in a row share an A.</summary>
    [JsonPropertyName("stride_A")]
    [Range(1, 65536)]
    public int StrideA { get; init; } = 1;

    /// <summary>How many B the modules of a kind share.</summary>
    [JsonPropertyName("num_B")]
    [Range(1, 4096)]
    public int NumB { get; init; } = 2;

    /// <summary>Factor of the update.</summary>
    [Range(-1e6, 1e6)]
    public double Scaling { get; init; } = 1;

    /// <summary>Modules left out although target_modules names them.</summary>
    public ModuleSelector? ExcludeModules { get; init; }

    /// <summary>Start as the method prescribes; false: at random, for tests.</summary>
    public bool InitWeights { get; init; } = true;

    /// <summary>Adapt only these layers; needs a list in target_modules.</summary>
    public OneOrMany<int>? LayersToTransform { get; init; }

    /// <summary>Name of the list of layers, where it is not the usual one.</summary>
    public OneOrMany<string>? LayersPattern { get; init; }

    internal override MethodParts CreateParts(IReadOnlyList<Site> sites, PretrainedModel model) => LilyProjection.Create(this, sites);
}
