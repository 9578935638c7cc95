using System.ComponentModel.DataAnnotations;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters.Shadow;

/// <summary>
/// ShadowPEFT: a small network beside the base reads the same text, and its state rides along. Before each block h += α·up(down(h − s)), behind it
/// s ← (1 − g) s + g·t, with g and t of h. Supervised training learns the shadow's own scores too.
/// <see href="https://arxiv.org/abs/2604.19254">Li et al. 2026</see>. For causal language models like Llama.
/// </summary>
public sealed record ShadowConfig : AdapterConfig
{
    /// <summary>Blocks to adapt, by the names of the layers or a regular expression; they follow one another. Absent: all.</summary>
    public ModuleSelector? TargetModules { get; init; }

    /// <summary>Blocks left out although target_modules names them.</summary>
    public ModuleSelector? ExcludeModules { get; init; }

    /// <summary>Width of what is put into a block.</summary>
    [Range(1, 65536)]
    public int R { get; init; } = 8;

    /// <summary>Factor of what is put into a block.</summary>
    [Range(-1e6, 1e6)]
    public double ShadowAlpha { get; init; } = 0.1;

    /// <summary>Chance that a value of h − s is dropped in training.</summary>
    [Range(0.0, 0.99)]
    public double ShadowDropout { get; init; } = 0.2;

    /// <summary>Start without an effect on the blocks; false: at random, for tests.</summary>
    public bool InitWeights { get; init; } = true;

    /// <summary>The network beside the base: mirror, a small model of the base's own kind.</summary>
    [AllowedValues("mirror")]
    public string ShadowModel { get; init; } = "mirror";

    /// <summary>Its layers. Absent: 1.</summary>
    [Range(1, 1024)]
    public int? ShadowNumHiddenLayers { get; init; }

    /// <summary>Its width. Absent: the base's.</summary>
    [Range(1, 65536)]
    public int? ShadowHiddenSize { get; init; }

    /// <summary>Its heads of attention. Absent: the base's.</summary>
    [Range(1, 1024)]
    public int? ShadowNumAttentionHeads { get; init; }

    /// <summary>Width of its feed-forward layers. Absent: the base's.</summary>
    [Range(1, 1048576)]
    public int? ShadowIntermediateSize { get; init; }

    /// <summary>It reads the base's embeddings; false, or where its width is another: its own.</summary>
    public bool ShareEmbeddings { get; init; } = true;

    /// <summary>Inner width of the networks behind g and t. Absent: r.</summary>
    [Range(1, 65536)]
    public int? UpdateHiddenSize { get; init; }

    /// <summary>What the loss of the shadow's own scores counts in supervised training.</summary>
    [Range(0.0, 1e6)]
    public double AuxiliaryLossWeight { get; init; } = 0.05;

    /// <summary>Adapt only these layers; needs a list in target_modules.</summary>
    public OneOrMany<int>? LayersToTransform { get; init; }

    /// <summary>Name of the list of layers, where it is not the usual one.</summary>
    public OneOrMany<string>? LayersPattern { get; init; }

    /// <summary>Modules that train in full and are saved beside the adapter, such as the head.</summary>
    public IReadOnlyList<string>? ModulesToSave { get; init; }

    public override IEnumerable<ValidationResult> Validate()
    {
        if (TaskType is not (null or Adapters.TaskType.CausalLm))
        {
            yield return new("SHADOW works with task_type CAUSAL_LM only here.", ["task_type"]);
        }

        if (LayersToTransform is not null && TargetModules is { Names: null })
        {
            yield return new("layers_to_transform needs target_modules to be a list of names.", ["layers_to_transform"]);
        }
    }

    public override Adapter CreateAdapter(PretrainedModel model) => ShadowAdapter.Create(this, model);
}
