using System.ComponentModel.DataAnnotations;
using System.Text.Json.Serialization;

namespace PeftServer.Engine.Adapters.Lora;

/// <summary>
/// CorDA: A and B are the directions of W that matter most (ipm), or least (kpm), to the inputs that the training data gives.
/// <see href="https://arxiv.org/abs/2406.05223">Yang et al. 2024</see>.
/// </summary>
public sealed record CordaConfig
{
    /// <summary>ipm learns the new task fastest, kpm keeps most of what the model knows.</summary>
    [AllowedValues("ipm", "kpm")]
    public string CordaMethod { get; init; } = "ipm";

    /// <summary>A file of PEFT's; here the data of the job is used.</summary>
    [OnlySupported(null)]
    public string? CacheFile { get; init; }

    /// <summary>A file of PEFT's; here the data of the job is used.</summary>
    [OnlySupported(null)]
    public string? CovarianceFile { get; init; }

    /// <summary>Collect covariances in half precision. Here they are in float32, whatever it says.</summary>
    public bool UseFloat16ForCovariance { get; init; }

    /// <summary>PEFT's housekeeping; nothing is left behind here.</summary>
    public bool PruneTemporaryFields { get; init; } = true;

    /// <summary>PEFT's progress bar.</summary>
    public bool Verbose { get; init; }
}

/// <summary>
/// Arrow: finished LoRA adapters between which each token chooses, at each module, by how far it goes along the direction that an adapter acts on
/// most. Nothing trains: a job with it puts the adapters together. <see href="https://arxiv.org/abs/2405.11157">Ostapenko et al. 2024</see>.
/// </summary>
public sealed record ArrowConfig
{
    private const int MostExperts = 64;

    /// <summary>Adapters that a token uses.</summary>
    [Range(1, MostExperts)]
    public int TopK { get; init; } = 3;

    /// <summary>Divides the scores before the softmax; lower is sharper.</summary>
    [Range(1e-6, 1e6)]
    public double RouterTemperature { get; init; } = 1;

    /// <summary>
    /// Take the mean of the adapters in gks_adapter_names out of the others first, so that these hold what is their own:
    /// <see href="https://aclanthology.org/2025.acl-short.54/">general knowledge subtraction</see>.
    /// </summary>
    public bool UseGks { get; init; }

    /// <summary>
    /// The adapters. In a job: ids of fine-tuned models of the same base, plain LoRAs of one rank on the same modules. In a file: task_0, task_1 and
    /// so on, the folders beside it.
    /// </summary>
    public IReadOnlyList<string>? TaskAdapterNames { get; init; }

    /// <summary>The general adapters, as task_adapter_names; gks_0, gks_1 and so on in a file.</summary>
    public IReadOnlyList<string>? GksAdapterNames { get; init; }

    /// <summary>Seed of the search for each adapter's direction. Absent: 0 (PEFT: any).</summary>
    [Range(0L, long.MaxValue)]
    public long? RngSeed { get; init; }

    /// <summary>Folders of the adapters.</summary>
    [JsonIgnore]
    internal IReadOnlyList<string> TaskFolders => [.. (TaskAdapterNames ?? []).Select((_, i) => FormattableString.Invariant($"task_{i}"))];

    /// <summary>Folders of the general adapters.</summary>
    [JsonIgnore]
    internal IReadOnlyList<string> GeneralFolders => UseGks ? [.. (GksAdapterNames ?? []).Select((_, i) => FormattableString.Invariant($"gks_{i}"))] : [];

    [JsonIgnore]
    internal IReadOnlyList<Expert> Experts =>
    [
        .. TaskFolders.Zip(TaskAdapterNames ?? []).Select((entry, i) => new Expert(entry.First, FormattableString.Invariant($"arrow_config.task_adapter_names[{i}]"), entry.Second)),
        .. GeneralFolders.Zip(GksAdapterNames ?? []).Select((entry, i) => new Expert(entry.First, FormattableString.Invariant($"arrow_config.gks_adapter_names[{i}]"), entry.Second)),
    ];

    internal IEnumerable<ValidationResult> Faults()
    {
        if (TaskAdapterNames is not { Count: > 0 and <= MostExperts } || GksAdapterNames is { Count: > MostExperts })
        {
            yield return new($"arrow_config chooses between 1 to {MostExperts} adapters. Name fine-tuned models in task_adapter_names: [\"ft:…\", \"ft:…\"].", ["arrow_config"]);
        }
        else if (TopK > TaskAdapterNames.Count)
        {
            yield return new($"arrow_config.top_k is {TopK}, but task_adapter_names has {TaskAdapterNames.Count} adapter(s).", ["arrow_config"]);
        }

        if (UseGks != GksAdapterNames is { Count: > 0 })
        {
            yield return new(
                UseGks ? "arrow_config.use_gks needs gks_adapter_names." : "arrow_config.gks_adapter_names is for use_gks. Set use_gks, or remove it.", ["arrow_config"]);
        }
    }
}

/// <summary>
/// EVA: A holds the principal components of a module's inputs, ranks go where they explain most.
/// <see href="https://arxiv.org/abs/2410.07170">Paischer et al. 2024</see>.
/// </summary>
public sealed record EvaConfig
{
    /// <summary>A module may get up to rho · r ranks; 1 leaves them as they are.</summary>
    [Range(1.0, 1000.0)]
    public double Rho { get; init; } = 2;

    /// <summary>Components have converged when batch after batch they turn by less than this cosine.</summary>
    [Range(0.0, 1.0)]
    public double Tau { get; init; } = 0.99;

    /// <summary>Use only the tokens that train.</summary>
    public bool UseLabelMask { get; init; } = true;

    /// <summary>The label of tokens that do not train. They are known here; the value says nothing.</summary>
    public int LabelMaskValue { get; init; } = -100;

    /// <summary>Divide components by the roots of their singular values.</summary>
    public bool Whiten { get; init; }

    /// <summary>A module's alpha goes with its rank, so that all update at the same scale.</summary>
    public bool AdjustScalingFactors { get; init; } = true;
}

/// <summary>
/// KaSA: ΔW = s·B diag(σ) A on a base without its r smallest singular directions.
/// <see href="https://arxiv.org/abs/2412.06071">Wang et al. 2024</see>.
/// </summary>
public sealed record KasaConfig
{
    /// <summary>Weight of Σσ² in the training loss.</summary>
    [Range(0.0, 1e6)]
    public double Beta { get; init; } = 1e-4;

    /// <summary>Weight of ‖BᵀB − I‖ + ‖AAᵀ − I‖ in the training loss.</summary>
    [Range(0.0, 1e6)]
    public double Gamma { get; init; } = 1e-3;
}

/// <summary>
/// LoftQ: the base is rounded, A and B start as what that lost.
/// <see href="https://arxiv.org/abs/2310.08659">Li et al. 2023</see>.
/// </summary>
public sealed record LoftqConfig
{
    /// <summary>4: NF4 in blocks of 64; 8: int8 by rows.</summary>
    [AllowedValues(null, 4, 8)]
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public int? LoftqBits { get; init; }

    /// <summary>Rounds of rounding and decomposing.</summary>
    [Range(1, 100)]
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public int? LoftqIter { get; init; }
}

/// <summary>
/// LoRA-GA: A and B start along the first gradient of W, so that the first steps go where full fine-tuning would.
/// <see href="https://arxiv.org/abs/2407.05000">Wang et al. 2024</see>.
/// </summary>
public sealed record LoraGaConfig
{
    /// <summary>Which singular vectors of the gradient go to A and which to B: ArBr, A2rBr, ArB2r or random.</summary>
    [AllowedValues("ArBr", "A2rBr", "ArB2r", "random")]
    public string Direction { get; init; } = "ArB2r";

    /// <summary>How long B is: stable, weight_svd, gd_scale or unit.</summary>
    [AllowedValues("stable", "weight_svd", "gd_scale", "unit")]
    public string Scale { get; init; } = "stable";

    /// <summary>γ of "stable": B is scaled by out^¼ / √γ.</summary>
    [Range(1e-6, 1e6)]
    public double StableGamma { get; init; } = 16;
}

/// <summary>
/// MonteCLoRA: in training A is a mix of draws around its mean, whose spread is learnt.
/// <see href="https://arxiv.org/abs/2411.04358">Sengupta et al. 2024</see>.
/// </summary>
public sealed record MontecloraConfig
{
    /// <summary>Draws that are mixed.</summary>
    [Range(1, 1024)]
    public int NumSamples { get; init; } = 8;

    /// <summary>Draws that PEFT makes at once. Here each step draws its own.</summary>
    [Range(1, 1000000)]
    public int BufferSize { get; init; } = 150;

    /// <summary>Prior of the weights of the mix.</summary>
    [Range(1e-9, 1e6)]
    public double DirichletPrior { get; init; } = 0.1;

    /// <summary>Weight of the divergence from the priors in the training loss.</summary>
    [Range(0.0, 1e6)]
    public double KlLossWeight { get; init; } = 1e-5;

    /// <summary>Scale of the draws.</summary>
    [Range(0.0, 1e6)]
    public double SampleScaler { get; init; } = 1e-4;

    /// <summary>Add the sum of squared mixing weights to the training loss.</summary>
    public bool UseEntropy { get; init; }
}

/// <summary>
/// BD-LoRA: A or B has blocks on its diagonal, one for each device that serves a share of the module.
/// <see href="https://arxiv.org/abs/2510.23346">BD-LoRA</see>.
/// </summary>
public sealed record BdLoraConfig
{
    /// <summary>Parts of names of modules whose A has blocks.</summary>
    public IReadOnlyList<string>? TargetModulesBdA { get; init; }

    /// <summary>Parts of names of modules whose B has blocks.</summary>
    public IReadOnlyList<string>? TargetModulesBdB { get; init; }

    /// <summary>How many blocks.</summary>
    [Range(1, 4096)]
    public int Nblocks { get; init; } = 1;

    /// <summary>Every adapted module must be named; false: others get a plain LoRA.</summary>
    public bool MatchStrict { get; init; } = true;
}

/// <summary>
/// VeLoRA: the backward pass keeps one number for each group of inputs, and rebuilds the inputs of A from those.
/// <see href="https://arxiv.org/abs/2405.17991">Miles et al. 2024</see>.
/// </summary>
public sealed record VeloraConfig
{
    /// <summary>Groups of inputs.</summary>
    [Range(1, 65536)]
    public int NumGroups { get; init; } = 64;

    /// <summary>Factor of the rebuilt inputs.</summary>
    [Range(1e-9, 1e6)]
    public double Scale { get; init; } = 1;

    /// <summary>The direction of a group: batch_average, batch_average_once or random.</summary>
    [AllowedValues("batch_average", "batch_average_once", "random")]
    public string InitType { get; init; } = "batch_average";
}
