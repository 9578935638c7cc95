using System.ComponentModel.DataAnnotations;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization;
using PeftServer.Engine.Adapters.TrainableTokens;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters.Lora;

/// <summary>
/// LoRA: y = Wx + s·B(A(dropout(x))) with s = lora_alpha / r, W frozen.
/// <see href="https://arxiv.org/abs/2106.09685">Hu et al. 2021</see>. Its variants are options, of which one may be chosen.
/// </summary>
public record LoraConfig : TargetedConfig, IExcludesModules, ISelectsLayers, ITrainsBias
{
    /// <summary>Rank of the update, from 1 to 4096.</summary>
    [Range(1, 4096)]
    public int R { get; init; } = 8;

    /// <summary>The update is scaled by lora_alpha / r.</summary>
    [Range(1e-6, 1e6)]
    public double LoraAlpha { get; init; } = 8;

    /// <summary>Chance that an input of A is dropped in training.</summary>
    [Range(0.0, 0.99)]
    public double LoraDropout { get; init; }

    /// <summary>Modules left out although target_modules names them.</summary>
    public ModuleSelector? ExcludeModules { get; init; }

    /// <summary>Which biases of the base train too: none, all, or lora_only.</summary>
    [AllowedValues("none", "all", "lora_only")]
    public string Bias { get; init; } = "none";

    /// <summary>Scale by lora_alpha / √r instead: <see href="https://arxiv.org/abs/2312.03732">rsLoRA</see>.</summary>
    public bool UseRslora { get; init; }

    /// <summary>Magnitude and direction apart: <see href="https://arxiv.org/abs/2402.09353">DoRA</see>.</summary>
    public bool UseDora { get; init; }

    /// <summary>B has a bias.</summary>
    public bool LoraBias { get; init; }

    /// <summary>
    /// How A and B start: true, false (both random, for tests), "gaussian", "orthogonal", "mica"; from the weight's own directions, which it then
    /// loses: "olora", "pissa", "pissa_niter_N", "loftq"; from the training data: "eva", "corda", "lora_ga".
    /// </summary>
    public LoraInit InitLoraWeights { get; init; } = LoraInit.Default;

    /// <summary>Adapt only these layers; needs a list in target_modules.</summary>
    public OneOrMany<int>? LayersToTransform { get; init; }

    /// <summary>Name of the list of layers, where it is not the usual one.</summary>
    public OneOrMany<string>? LayersPattern { get; init; }

    /// <summary>Ranks of single modules: a name or regular expression to a rank. The first match wins.</summary>
    public IReadOnlyDictionary<string, int> RankPattern { get; init; } = new Dictionary<string, int>();

    /// <summary>Alphas of single modules, as <see cref="RankPattern"/>.</summary>
    public IReadOnlyDictionary<string, double> AlphaPattern { get; init; } = new Dictionary<string, double>();

    /// <summary>Rows of the token embedding that train: a list of ids, or a map from module to list. A tied head follows.</summary>
    public JsonNode? TrainableTokenIndices { get; init; }

    /// <summary>Adapt a tied head with its embedding's transposed factors.</summary>
    public bool EnsureWeightTying { get; init; }

    /// <summary>The base weight is stored (in, out); PEFT sets it for GPT-2's Conv1D. The layer knows by itself here.</summary>
    public bool FanInFanOut { get; init; }

    /// <summary>Tokens that switch the adapter on, from their last occurrence in a prompt: <see href="https://arxiv.org/abs/2504.12397">aLoRA</see>.</summary>
    [Length(1, 1024)]
    public IReadOnlyList<int>? AloraInvocationTokens { get; init; }

    /// <summary>Settings of "corda".</summary>
    public CordaConfig? CordaConfig { get; init; }

    /// <summary>Settings of "eva".</summary>
    public EvaConfig? EvaConfig { get; init; }

    /// <summary>A diagonal between A and B, and a base without its smallest directions: KaSA.</summary>
    public KasaConfig? KasaConfig { get; init; }

    /// <summary>
    /// Ranges [start, end) of layers that make up a deeper model, each layer with a LoRA of its own and the weights of its original.
    /// </summary>
    public IReadOnlyList<IReadOnlyList<int>>? LayerReplication { get; init; }

    /// <summary>Settings of "loftq".</summary>
    public LoftqConfig LoftqConfig { get; init; } = new();

    /// <summary>Settings of "lora_ga".</summary>
    public LoraGaConfig? LoraGaConfig { get; init; }

    /// <summary>A is drawn around its mean in training: MonteCLoRA.</summary>
    public MontecloraConfig? MontecloraConfig { get; init; }

    /// <summary>Blocks on the diagonal of A or B: BD-LoRA.</summary>
    public BdLoraConfig? UseBdlora { get; init; }

    /// <summary>A sees means of groups of inputs: <see href="https://arxiv.org/abs/2309.14717">QA-LoRA</see>.</summary>
    public bool UseQalora { get; init; }

    /// <summary>Inputs in a group of QA-LoRA; it divides the width.</summary>
    [Range(1, 65536)]
    public int QaloraGroupSize { get; init; } = 16;

    /// <summary>The gradient of A is made of compressed inputs: VeLoRA.</summary>
    public VeloraConfig? VeloraConfig { get; init; }

    /// <summary>Tokens choose between finished adapters: Arrow. It takes r and target_modules from those.</summary>
    public ArrowConfig? ArrowConfig { get; init; }

    /// <summary>Parallel layers of Megatron, which this server does not have.</summary>
    [OnlySupported(null)]
    public JsonNode? MegatronConfig { get; init; }

    /// <summary>Name of Megatron's module; without <see cref="MegatronConfig"/> it says nothing.</summary>
    public string MegatronCore { get; init; } = "megatron.core";

    /// <summary>Parameters to adapt that are no module's weight, such as a layer's experts: names, as in target_modules.</summary>
    public IReadOnlyList<string>? TargetParameters { get; init; }

    internal override bool HasOtherTargets => TargetParameters is { Count: > 0 };

    internal override bool NeedsCalibration => InitLoraWeights.IsFromData;

    /// <summary>Where the adapters of <see cref="ArrowConfig"/> are; set by who knows it.</summary>
    [JsonIgnore]
    public string? ExpertFolder { get; init; }

    [JsonIgnore]
    public override IReadOnlyList<Expert> Experts => ArrowConfig?.Experts ?? [];

    internal override AdapterConfig WithExperts(string folder) => this with { ExpertFolder = folder };

    public override Adapter CreateAdapter(PretrainedModel model) => ArrowConfig is not null ? ArrowAdapter.Create(this, model) :
        new LoraAdapter((LoraConfig)Filled(model), LayerReplication is { Count: > 0 } ranges ? Models.LayerReplication.Deepen(model, ranges) : model);

    internal override Adapter CreateCalibrated(PretrainedModel model, CalibrationData data) =>
        LoraCalibration.Create((LoraConfig)Filled(model), model, data);

    internal override TargetedConfig Resolved(PretrainedModel model) => WithTied(model) with
    {
        EvaConfig = InitLoraWeights.Name == "eva" ? EvaConfig ?? new EvaConfig() : EvaConfig,
        CordaConfig = InitLoraWeights.Name == "corda" ? CordaConfig ?? new CordaConfig() : CordaConfig,
        LoraGaConfig = InitLoraWeights.Name == "lora_ga" ? LoraGaConfig ?? new LoraGaConfig() : LoraGaConfig,
    };

    /// <summary>With ensure_weight_tying, whether the settings name the token embedding or its head, as PEFT looks for them.</summary>
    internal bool TiesTargets => EnsureWeightTying && TargetModules is not null
        && (TargetModules.Names?.Any(NamesTable) ?? (TargetModules.Matches("embed_tokens") || TargetModules.Matches("lm_head")));

    private static bool NamesTable(string name) => name[(name.LastIndexOf('.') + 1)..] is "embed_tokens" or "lm_head";

    /// <summary>As PEFT writes it under ensure_weight_tying: the embedding by its path, and not the heads that follow it.</summary>
    private LoraConfig WithTied(PretrainedModel model)
    {
        if (!EnsureWeightTying || model.TokenEmbedding is not { } table || TokenRows.Tied(model, table).ToList() is not { Count: > 0 } heads)
        {
            return this;
        }

        return ModulesToSave?.Any(NamesTable) is true ? this with { ModulesToSave = Named(ModulesToSave) }
            : TiesTargets && TargetModules!.Names is { } names ? this with { TargetModules = ModuleSelector.Of(Named(names)) }
            : this;

        string[] Named(IReadOnlyList<string> given) =>
            [.. given.Append(table.Path).Distinct().Where(name => !heads.Exists(head => ModuleSelector.EndsWithName(head.Path, name)))];
    }

    internal override MethodParts CreateParts(IReadOnlyList<Site> sites, PretrainedModel model) => LoraParts.Create(this, sites, model);

    /// <summary>Rank and scale at the module with this path.</summary>
    internal (int R, double Scale) RankAt(string path)
    {
        var r = Adapters.TargetModules.ByPattern(RankPattern, path, R);
        var alpha = Adapters.TargetModules.ByPattern(AlphaPattern, path, LoraAlpha);
        return (r, UseRslora ? alpha / Math.Sqrt(r) : alpha / r);
    }

    public override IEnumerable<ValidationResult> Validate()
    {
        string[] variants = [.. Variants()];
        if (variants.Length > 1)
        {
            yield return new ValidationResult($"{string.Join(" and ", variants)} exclude each other. Keep one.", variants);
        }

        if (LoraBias && UseDora)
        {
            yield return new ValidationResult("lora_bias does not go with use_dora. Remove one.", ["lora_bias"]);
        }

        if (InitLoraWeights.NeedsPlainShapes && (UseQalora || UseBdlora is not null || KasaConfig is not null))
        {
            yield return new ValidationResult(
                $"init_lora_weights '{InitLoraWeights.Name}' does not go with {variants[0]}. Use true.", ["init_lora_weights"]);
        }

        if (UseDora && InitLoraWeights.NeedsStart)
        {
            yield return new ValidationResult(
                $"use_dora does not go with init_lora_weights '{InitLoraWeights.Name}': the result could not be saved for the base as it is.", ["use_dora"]);
        }

        if (TargetParameters is { Count: > 0 } && (variants.Length > 0 || LoraBias || LoraDropout > 0 || InitLoraWeights.NeedsPlainShapes))
        {
            yield return new ValidationResult(
                "target_parameters takes plain LoRA: no variant, no lora_bias, no lora_dropout, and init_lora_weights true, false or gaussian.", ["target_parameters"]);
        }

        if (InitLoraWeights.Name == "loftq" && LoftqConfig.LoftqBits is null)
        {
            yield return new ValidationResult("init_lora_weights 'loftq' needs loftq_config with loftq_bits and loftq_iter.", ["loftq_config"]);
        }

        if (LayerReplication is { Count: > 0 } && (InitLoraWeights.IsFromData || TargetParameters is { Count: > 0 }))
        {
            yield return new ValidationResult(
                $"layer_replication does not go with {(InitLoraWeights.IsFromData ? $"init_lora_weights '{InitLoraWeights.Name}'" : "target_parameters")}.", ["layer_replication"]);
        }

        if (InitLoraWeights.Name == "orthogonal" && RankPattern.Values.Append(R).Any(r => r % 2 != 0))
        {
            yield return new ValidationResult("init_lora_weights 'orthogonal' needs even ranks.", ["r"]);
        }

        if (LayersToTransform is not null && TargetModules?.Names is null)
        {
            yield return new ValidationResult(
                "layers_to_transform needs target_modules to be a list of names.", ["layers_to_transform"]);
        }

        foreach (var (module, r) in RankPattern.Where(entry => entry.Value is < 1 or > 4096))
        {
            yield return new ValidationResult($"The rank of '{module}' is {r}; it must be from 1 to 4096.", ["rank_pattern"]);
        }

        if (TokenRows.Fault(TrainableTokenIndices) is { } fault)
        {
            yield return new ValidationResult(fault, ["trainable_token_indices"]);
        }

        foreach (var nested in ArrowFaults().Concat(Nested().SelectMany(entry => FaultsOf(entry.Field, entry.Settings))))
        {
            yield return nested;
        }
    }

    private IEnumerable<ValidationResult> ArrowFaults()
    {
        var trains = LoraBias || Bias != "none" || ModulesToSave is { Count: > 0 } || TrainableTokenIndices is not null || HasOtherTargets
            || LayerReplication is { Count: > 0 } || InitLoraWeights.IsFromData;
        return ArrowConfig is null ? []
            : !trains ? ArrowConfig.Faults()
            : ArrowConfig.Faults().Append(new ValidationResult(
                "arrow_config puts finished adapters together and trains nothing: it goes without lora_bias, bias, modules_to_save, trainable_token_indices, target_parameters, layer_replication and a start from data.",
                ["arrow_config"]));
    }

    private IEnumerable<string> Variants()
    {
        (string Field, bool Used)[] variants =
        [
            ("use_dora", UseDora), ("alora_invocation_tokens", AloraInvocationTokens is not null), ("kasa_config", KasaConfig is not null),
            ("monteclora_config", MontecloraConfig is not null), ("use_bdlora", UseBdlora is not null), ("use_qalora", UseQalora),
            ("velora_config", VeloraConfig is not null), ("arrow_config", ArrowConfig is not null),
        ];
        return variants.Where(variant => variant.Used).Select(variant => variant.Field);
    }

    private IEnumerable<(string Field, object Settings)> Nested()
    {
        (string Field, object? Settings)[] all =
        [
            ("arrow_config", ArrowConfig), ("corda_config", CordaConfig), ("eva_config", EvaConfig), ("kasa_config", KasaConfig), ("loftq_config", LoftqConfig),
            ("lora_ga_config", LoraGaConfig), ("monteclora_config", MontecloraConfig), ("use_bdlora", UseBdlora), ("velora_config", VeloraConfig),
        ];
        return all.Where(entry => entry.Settings is not null)!;
    }

    private static IEnumerable<ValidationResult> FaultsOf(string field, object settings)
    {
        var faults = new List<ValidationResult>();
        Validator.TryValidateObject(settings, new ValidationContext(settings), faults, validateAllProperties: true);
        return faults.Select(fault => new ValidationResult($"{field}: {fault.ErrorMessage}", [field]));
    }
}
