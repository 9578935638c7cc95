using System.ComponentModel.DataAnnotations;
using System.Text.Json.Nodes;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters.Lora;

/// <summary>
/// LoRA: y = Wx + s·B(A(dropout(x))) with s = lora_alpha / r, W frozen.
/// <see href="https://arxiv.org/abs/2106.09685">Hu et al. 2021</see>.
/// </summary>
public sealed record LoraConfig : AdapterConfig
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

    /// <summary>Modules to adapt: names, a regular expression, or "all-linear". Absent: PEFT's defaults for the model.</summary>
    public ModuleSelector? TargetModules { get; init; }

    /// <summary>Modules left out although <see cref="TargetModules"/> names them.</summary>
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

    /// <summary>Modules that train in full and are saved beside the adapter, such as a new head.</summary>
    public IReadOnlyList<string>? ModulesToSave { get; init; }

    /// <summary>true, false (both random, for tests), "gaussian", "orthogonal", "olora", "pissa" or "pissa_niter_N".</summary>
    public LoraInit InitLoraWeights { get; init; } = LoraInit.Default;

    /// <summary>Adapt only these layers; needs a list in <see cref="TargetModules"/>.</summary>
    public OneOrMany<int>? LayersToTransform { get; init; }

    /// <summary>Name of the list of layers, where it is not the usual one.</summary>
    public OneOrMany<string>? LayersPattern { get; init; }

    /// <summary>Ranks of single modules: a name or regular expression to a rank. The first match wins.</summary>
    public IReadOnlyDictionary<string, int> RankPattern { get; init; } = new Dictionary<string, int>();

    /// <summary>Alphas of single modules, as <see cref="RankPattern"/>.</summary>
    public IReadOnlyDictionary<string, double> AlphaPattern { get; init; } = new Dictionary<string, double>();

    /// <summary>Rows of the token embedding that train: a list, or a map from module to list.</summary>
    public JsonNode? TrainableTokenIndices { get; init; }

    /// <summary>Adapt a tied head with its embedding's transposed factors.</summary>
    public bool EnsureWeightTying { get; init; }

    /// <summary>The base weight is stored (in, out); PEFT sets it for GPT-2's Conv1D. The layer knows by itself here.</summary>
    public bool FanInFanOut { get; init; }

    // What LoraAdapter does not compute yet. Any value but the default is an error that names the field.
    public JsonNode? AloraInvocationTokens { get; init; }
    public JsonNode? ArrowConfig { get; init; }
    public JsonNode? CordaConfig { get; init; }
    public JsonNode? EvaConfig { get; init; }
    public JsonNode? KasaConfig { get; init; }
    public JsonNode? LayerReplication { get; init; }
    public JsonObject LoftqConfig { get; init; } = [];
    public JsonNode? LoraGaConfig { get; init; }
    public JsonNode? MegatronConfig { get; init; }
    public string MegatronCore { get; init; } = "megatron.core";
    public JsonNode? MontecloraConfig { get; init; }
    public JsonNode? TargetParameters { get; init; }
    public JsonNode? UseBdlora { get; init; }
    public bool UseQalora { get; init; }
    public int QaloraGroupSize { get; init; } = 16;
    public JsonNode? VeloraConfig { get; init; }

    public override Adapter CreateAdapter(PretrainedModel model) => new LoraAdapter(this, model);

    public override IEnumerable<ValidationResult> Validate()
    {
        foreach (var (field, value) in Unsupported().Where(entry => entry.Value))
        {
            yield return new ValidationResult($"{field} is not supported by this server yet. Remove it.", [field]);
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
    }

    private IEnumerable<KeyValuePair<string, bool>> Unsupported() => new Dictionary<string, bool>
    {
        ["use_dora"] = UseDora,
        ["trainable_token_indices"] = TrainableTokenIndices is not null,
        ["ensure_weight_tying"] = EnsureWeightTying,
        ["bias"] = Bias != "none",
        ["init_lora_weights"] = InitLoraWeights.Name is not ("true" or "false" or "gaussian"),
        ["alora_invocation_tokens"] = AloraInvocationTokens is not null,
        ["arrow_config"] = ArrowConfig is not null,
        ["corda_config"] = CordaConfig is not null,
        ["eva_config"] = EvaConfig is not null,
        ["kasa_config"] = KasaConfig is not null,
        ["layer_replication"] = LayerReplication is not null,
        ["loftq_config"] = LoftqConfig.Count > 0,
        ["lora_ga_config"] = LoraGaConfig is not null,
        ["megatron_config"] = MegatronConfig is not null,
        ["monteclora_config"] = MontecloraConfig is not null,
        ["target_parameters"] = TargetParameters is not (null or JsonArray { Count: 0 }),
        ["use_bdlora"] = UseBdlora is not null,
        ["use_qalora"] = UseQalora,
        ["velora_config"] = VeloraConfig is not null,
    };
}
