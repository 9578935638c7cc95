using System.ComponentModel.DataAnnotations;
using System.Text.Json.Serialization;
using PeftServer.Engine.Adapters.Lora;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters.AdaLora;

/// <summary>
/// AdaLoRA: ΔW = s·B(A ∘ E), ranks that matter least are switched off while it trains, down to target_r a module on average.
/// <see href="https://arxiv.org/abs/2303.10512">Zhang et al. 2023</see>. LoRA's variants and its r do not apply.
/// </summary>
public sealed record AdaLoraConfig : LoraConfig
{
    /// <summary>Ranks a module has in the end, on average.</summary>
    [Range(1, 4096)]
    public int TargetR { get; init; } = 8;

    /// <summary>Ranks each module starts with.</summary>
    [Range(1, 4096)]
    public int InitR { get; init; } = 12;

    /// <summary>Steps before the first rank goes.</summary>
    [Range(0, int.MaxValue)]
    public int Tinit { get; init; }

    /// <summary>Steps at the end in which no more ranks go.</summary>
    [Range(0, int.MaxValue)]
    public int Tfinal { get; init; }

    /// <summary>Steps from one choice of ranks to the next.</summary>
    [JsonPropertyName("deltaT")]
    [Range(1, int.MaxValue)]
    public int DeltaT { get; init; } = 1;

    /// <summary>How much of the importance so far stays at a step.</summary>
    [Range(1e-6, 0.999999)]
    public double Beta1 { get; init; } = 0.85;

    /// <summary>How much of the uncertainty so far stays at a step.</summary>
    [Range(1e-6, 0.999999)]
    public double Beta2 { get; init; } = 0.85;

    /// <summary>Weight of ‖AAᵀ − I‖ + ‖BᵀB − I‖ in the training loss.</summary>
    [Range(0.0, 1e6)]
    public double OrthRegWeight { get; init; } = 0.5;

    /// <summary>Steps of the whole training. Absent: as many as the job has.</summary>
    [Range(1, int.MaxValue)]
    public int? TotalStep { get; init; }

    /// <summary>The ranks that are on: "MODULE.lora_E" to a value for each rank. Written when training ends.</summary>
    public new IReadOnlyDictionary<string, IReadOnlyList<bool>>? RankPattern { get; init; }

    internal override bool NeedsCalibration => false;

    public override Adapter CreateAdapter(PretrainedModel model) => new AdaLoraAdapter((AdaLoraConfig)Filled(model), model);

    protected override ModuleSelector DefaultTargets(PretrainedModel model) => Adapters.TargetModules.DefaultFor(model, "ADALORA");

    internal override MethodParts CreateParts(IReadOnlyList<Site> sites, PretrainedModel model) =>
        MethodParts.Each(sites, site => new AdaLoraProjection(this, site));

    public override IEnumerable<ValidationResult> Validate()
    {
        foreach (var fault in base.Validate())
        {
            yield return fault;
        }

        if (ArrowConfig is not null)
        {
            yield return new ValidationResult("arrow_config is for LORA: it trains nothing.", ["arrow_config"]);
        }

        if (TargetR > InitR)
        {
            yield return new ValidationResult($"target_r ({TargetR}) is more than init_r ({InitR}).", ["target_r"]);
        }

        if (TotalStep is { } total && Tinit >= total - Tfinal)
        {
            yield return new ValidationResult($"tinit ({Tinit}) leaves no step before the last tfinal ({Tfinal}) of total_step ({total}).", ["tinit"]);
        }

        if (InitLoraWeights.Name is not ("true" or "false"))
        {
            yield return new ValidationResult("AdaLoRA starts with init_lora_weights true, or false for tests.", ["init_lora_weights"]);
        }

        (string Field, bool Used)[] others =
        [
            ("use_dora", UseDora), ("alora_invocation_tokens", AloraInvocationTokens is not null), ("kasa_config", KasaConfig is not null),
            ("monteclora_config", MontecloraConfig is not null), ("use_bdlora", UseBdlora is not null), ("use_qalora", UseQalora),
            ("velora_config", VeloraConfig is not null), ("lora_bias", LoraBias), ("trainable_token_indices", TrainableTokenIndices is not null),
            ("target_parameters", TargetParameters is { Count: > 0 }), ("layer_replication", LayerReplication is not null), ("use_rslora", UseRslora),
            ("ensure_weight_tying", EnsureWeightTying),
        ];
        foreach (var (field, _) in others.Where(other => other.Used))
        {
            yield return new ValidationResult($"{field} does not go with AdaLoRA. Remove it.", [field]);
        }
    }
}
