using System.ComponentModel.DataAnnotations;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters.Peanut;

/// <summary>
/// PEANuT: ΔW = scaling · B f(A W), a small network of the frozen weight; depth adds layers inside.
/// <see href="https://arxiv.org/abs/2410.01870">Zhong et al. 2024</see>.
/// </summary>
public sealed record PeanutConfig : TargetedConfig, IExcludesModules, ISelectsLayers
{
    /// <summary>Width inside the network.</summary>
    [Range(1, 4096)]
    public int R { get; init; } = 32;

    /// <summary>Pairs of layers between A and B.</summary>
    [Range(0, 64)]
    public int Depth { get; init; }

    /// <summary>The activation: relu, silu, gelu, tanh or sigmoid.</summary>
    [AllowedValues("relu", "silu", "gelu", "tanh", "sigmoid")]
    public string ActFn { get; init; } = "relu";

    /// <summary>Factor of the update.</summary>
    [Range(1e-6, 1e6)]
    public double Scaling { get; init; } = 1;

    /// <summary>Modules left out although target_modules names them.</summary>
    public ModuleSelector? ExcludeModules { get; init; }

    /// <summary>Start as the method prescribes; false: at random, for tests.</summary>
    public bool InitWeights { get; init; } = true;

    /// <summary>Adapt only these layers; needs a list in target_modules.</summary>
    public OneOrMany<int>? LayersToTransform { get; init; }

    /// <summary>Name of the list of layers, where it is not the usual one.</summary>
    public OneOrMany<string>? LayersPattern { get; init; }

    internal override MethodParts CreateParts(IReadOnlyList<Site> sites, PretrainedModel model) =>
        MethodParts.Each(sites, site => new PeanutProjection(this, site));
}
