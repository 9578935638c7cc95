using System.ComponentModel.DataAnnotations;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters.C3a;

/// <summary>
/// C3A: ΔW of circulant blocks, each one trained kernel of a circular convolution, divided by the inputs.
/// <see href="https://arxiv.org/abs/2407.19342">Chen et al. 2024</see>.
/// </summary>
public sealed record C3aConfig : TargetedConfig, ISelectsLayers, ITrainsBias
{
    /// <summary>Side of the blocks; must divide both sides of every adapted weight.</summary>
    [Range(1, 65536)]
    public int BlockSize { get; init; } = 256;

    /// <summary>Sides of single modules: a name or regular expression to a side.</summary>
    public IReadOnlyDictionary<string, int> BlockSizePattern { get; init; } = new Dictionary<string, int>();

    /// <summary>Which biases of the base train too: none, all, or c3a_only.</summary>
    [AllowedValues("none", "all", "c3a_only")]
    public string Bias { get; init; } = "none";

    /// <summary>Adapt only these layers; needs a list in target_modules.</summary>
    public OneOrMany<int>? LayersToTransform { get; init; }

    /// <summary>Name of the list of layers, where it is not the usual one.</summary>
    public OneOrMany<string>? LayersPattern { get; init; }

    /// <summary>How the kernels start: xavier_uniform, kaiming_uniform, gaussian, or true for zeros.</summary>
    [InitChoices("xavier_uniform", "kaiming_uniform", "gaussian", "true", "false")]
    public InitChoice InitWeights { get; init; } = InitChoice.Named("xavier_uniform");

    /// <summary>
    /// What training takes for the gradient of a module's input: exact, or peft, which is PEFT's own. PEFT's backward pass correlates the
    /// gradient with the kernels where the gradient of its forward pass convolves them, g ⋆ w for g ∗ w, so everything below a module learns
    /// from the block's gradient read backwards; the gradient of the kernels is right in both. Choose peft to repeat a run of PEFT's. It is a
    /// setting of the job alone: no file holds it, and a trained adapter is used alike either way.
    /// </summary>
    [JobOnly]
    public C3aGradient Gradient { get; init; }

    internal override MethodParts CreateParts(IReadOnlyList<Site> sites, PretrainedModel model) =>
        MethodParts.Each(sites, site => new C3aProjection(this, site));
}
