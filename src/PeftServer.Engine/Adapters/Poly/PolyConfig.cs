using System.ComponentModel.DataAnnotations;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters.Poly;

/// <summary>
/// Polytropon: y = Wx + B(t)A(t)x / r, where A and B of task t are mixes of n_skills shared ones, each task with weights of its own; with
/// n_splits &gt; 1 each slice of the features has its own mix. Which task a sequence is of comes with it; without, it is task 0.
/// <see href="https://arxiv.org/abs/2202.13914">Ponti et al. 2022</see>,
/// <see href="https://arxiv.org/abs/2211.03831">Caccia et al. 2022</see>.
/// </summary>
public sealed record PolyConfig : TargetedConfig, IExcludesModules, IKnowsTasks
{
    /// <summary>Rank of every skill.</summary>
    [Range(1, 4096)]
    public int R { get; init; } = 8;

    /// <summary>Modules left out although target_modules names them.</summary>
    public ModuleSelector? ExcludeModules { get; init; }

    /// <summary>Start as the identity, B at zero; false: B random too, for tests.</summary>
    public bool InitWeights { get; init; } = true;

    /// <summary>The variant. PEFT has one.</summary>
    [AllowedValues("poly")]
    public string PolyType { get; init; } = "poly";

    /// <summary>How many tasks there are.</summary>
    [Range(1, 4096)]
    public int NTasks { get; init; } = 1;

    /// <summary>How many skills are mixed.</summary>
    [Range(1, 4096)]
    public int NSkills { get; init; } = 4;

    /// <summary>Into how many slices the features are cut; divides both sides of every adapted weight.</summary>
    [Range(1, 4096)]
    public int NSplits { get; init; } = 1;

    int IKnowsTasks.TaskCount => NTasks;

    internal override MethodParts CreateParts(IReadOnlyList<Site> sites, PretrainedModel model) => MethodParts.Each(sites, site => new PolyProjection(this, site));
}
