using System.ComponentModel.DataAnnotations;

namespace PeftServer.Engine.Training.Objectives;

/// <summary>Settings of direct preference optimization, under TRL's names.</summary>
public record DpoSettings : IMethodSettings
{
    /// <summary>One loss, or several that are mixed by <see cref="LossWeights"/>.</summary>
    public OneOrMany<DpoLossType> LossType { get; init; } = new([DpoLossType.Sigmoid], IsOne: true);

    /// <summary>A weight for each of several losses; absent: 1 each.</summary>
    public IReadOnlyList<double>? LossWeights { get; init; }

    /// <summary>How closely the policy is held to the reference: higher is closer.</summary>
    [Range(1e-6, 1e3)]
    public double Beta { get; init; } = 0.1;

    /// <summary>How likely it is that a preference is the wrong way round; sigmoid, robust, exo_pair, aot and aot_unpaired use it.</summary>
    [Range(0.0, 0.499)]
    public double LabelSmoothing { get; init; }

    /// <summary>What the policy is held to; absent: the adapter that the run starts from, frozen, or the base where it starts from none, as TRL's trainer does.</summary>
    public PreferenceReference? Reference { get; init; }

    /// <summary>The divergence from the reference that the loss is derived from.</summary>
    public FDivergence FDivergenceType { get; init; }

    /// <summary>The α of the alpha divergence.</summary>
    [Range(1e-3, 0.999)]
    public double FAlphaDivergenceCoef { get; init; } = 0.5;

    /// <summary>LD-DPO: weight of tokens beyond the length of the shorter completion; absent: 1.</summary>
    [Range(0.0, 1.0)]
    public double? LdAlpha { get; init; }

    /// <summary>WPO: weigh each pair by how likely the policy is to write it.</summary>
    public bool UseWeighting { get; init; }

    /// <summary>DiscoPOP's temperature.</summary>
    [Range(1e-6, 1e3)]
    public double DiscopopTau { get; init; } = 0.05;

    /// <summary>What is contradictory: field and remedy.</summary>
    public IEnumerable<ValidationResult> Contradictions()
    {
        var faults = new List<ValidationResult>();
        if (LossType.Values.Count == 0)
        {
            faults.Add(new("loss_type names no loss. Write \"sigmoid\".", [nameof(LossType)]));
        }

        if (LossWeights is { } weights && weights.Count != LossType.Values.Count)
        {
            faults.Add(new($"loss_weights has {weights.Count} weights for {LossType.Values.Count} losses. Give one for each.", [nameof(LossWeights)]));
        }

        if (LossType.Values.Contains(DpoLossType.ExoPair) && LabelSmoothing == 0)
        {
            faults.Add(new("exo_pair needs a label_smoothing above 0, such as 0.001.", [nameof(LabelSmoothing)]));
        }

        return faults;
    }
}

/// <summary>The model that a policy is measured against.</summary>
public enum PreferenceReference
{
    /// <summary>The base model: the adapter off.</summary>
    AdapterOff,

    /// <summary>A frozen copy of the adapter that the run starts from.</summary>
    StartingAdapter,
}

/// <summary>The losses over a pair. Each is documented where it is computed.</summary>
public enum DpoLossType
{
    Sigmoid,
    Hinge,
    Ipo,
    ExoPair,
    NcaPair,
    Robust,
    BcoPair,
    SppoHard,
    Aot,
    AotUnpaired,
    ApoZero,
    ApoDown,
    Discopop,
    SigmoidNorm,
    Sft,
}

/// <summary>f-divergences (<see href="https://arxiv.org/abs/2309.16240"/>).</summary>
public enum FDivergence
{
    ReverseKl,
    ForwardKl,
    JsDivergence,
    AlphaDivergence,
}
