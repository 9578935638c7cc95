using System.ComponentModel.DataAnnotations;
using System.Reflection;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization;
using PeftServer.Engine.Adapters.AdaLora;
using PeftServer.Engine.Adapters.AdaMss;
using PeftServer.Engine.Adapters.AdapterHub;
using PeftServer.Engine.Adapters.AdaptionPrompt;
using PeftServer.Engine.Adapters.Beft;
using PeftServer.Engine.Adapters.Boft;
using PeftServer.Engine.Adapters.C3a;
using PeftServer.Engine.Adapters.Cartridge;
using PeftServer.Engine.Adapters.Cpt;
using PeftServer.Engine.Adapters.Deft;
using PeftServer.Engine.Adapters.Delora;
using PeftServer.Engine.Adapters.FourierFt;
using PeftServer.Engine.Adapters.Frod;
using PeftServer.Engine.Adapters.Glora;
using PeftServer.Engine.Adapters.Gralora;
using PeftServer.Engine.Adapters.Hira;
using PeftServer.Engine.Adapters.Hra;
using PeftServer.Engine.Adapters.Ia3;
using PeftServer.Engine.Adapters.Lily;
using PeftServer.Engine.Adapters.LnTuning;
using PeftServer.Engine.Adapters.Loha;
using PeftServer.Engine.Adapters.Lokr;
using PeftServer.Engine.Adapters.Lora;
using PeftServer.Engine.Adapters.Miss;
using PeftServer.Engine.Adapters.MultitaskPromptTuning;
using PeftServer.Engine.Adapters.Oft;
using PeftServer.Engine.Adapters.Osf;
using PeftServer.Engine.Adapters.Peanut;
using PeftServer.Engine.Adapters.Poly;
using PeftServer.Engine.Adapters.PrefixTuning;
using PeftServer.Engine.Adapters.PromptTuning;
using PeftServer.Engine.Adapters.Psoft;
using PeftServer.Engine.Adapters.PTuning;
using PeftServer.Engine.Adapters.Pvera;
using PeftServer.Engine.Adapters.RandLora;
using PeftServer.Engine.Adapters.Road;
using PeftServer.Engine.Adapters.Shadow;
using PeftServer.Engine.Adapters.Shira;
using PeftServer.Engine.Adapters.Supertuning;
using PeftServer.Engine.Adapters.TinyLora;
using PeftServer.Engine.Adapters.TrainableTokens;
using PeftServer.Engine.Adapters.UniLora;
using PeftServer.Engine.Adapters.Vblora;
using PeftServer.Engine.Adapters.Vera;
using PeftServer.Engine.Adapters.WaveFt;
using PeftServer.Engine.Adapters.Xlora;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters;

/// <summary>
/// The settings of a PEFT method, field for field those of its <c>adapter_config.json</c>. The same record is the API's
/// <c>peft</c>, the jsonb column and the file. The <see cref="JsonDerivedTypeAttribute"/> lines are the list of methods.
/// </summary>
[JsonPolymorphic(TypeDiscriminatorPropertyName = "peft_type")]
[JsonDerivedType(typeof(AdaLoraConfig), "ADALORA")]
[JsonDerivedType(typeof(AdaMssConfig), "ADAMSS")]
[JsonDerivedType(typeof(AdapterHubConfig), "ADAPTERS")]
[JsonDerivedType(typeof(AdaptionPromptConfig), "ADAPTION_PROMPT")]
[JsonDerivedType(typeof(BeftConfig), "BEFT")]
[JsonDerivedType(typeof(BoftConfig), "BOFT")]
[JsonDerivedType(typeof(C3aConfig), "C3A")]
[JsonDerivedType(typeof(CartridgeConfig), "CARTRIDGE")]
[JsonDerivedType(typeof(CptConfig), "CPT")]
[JsonDerivedType(typeof(DeftConfig), "DEFT")]
[JsonDerivedType(typeof(DeloraConfig), "DELORA")]
[JsonDerivedType(typeof(FourierFtConfig), "FOURIERFT")]
[JsonDerivedType(typeof(FrodConfig), "FROD")]
[JsonDerivedType(typeof(GloraConfig), "GLORA")]
[JsonDerivedType(typeof(GraloraConfig), "GRALORA")]
[JsonDerivedType(typeof(HiraConfig), "HIRA")]
[JsonDerivedType(typeof(HraConfig), "HRA")]
[JsonDerivedType(typeof(Ia3Config), "IA3")]
[JsonDerivedType(typeof(LilyConfig), "LILY")]
[JsonDerivedType(typeof(LnTuningConfig), "LN_TUNING")]
[JsonDerivedType(typeof(LohaConfig), "LOHA")]
[JsonDerivedType(typeof(LokrConfig), "LOKR")]
[JsonDerivedType(typeof(LoraConfig), "LORA")]
[JsonDerivedType(typeof(MissConfig), "MISS")]
[JsonDerivedType(typeof(MultitaskPromptTuningConfig), "MULTITASK_PROMPT_TUNING")]
[JsonDerivedType(typeof(OftConfig), "OFT")]
[JsonDerivedType(typeof(OsfConfig), "OSF")]
[JsonDerivedType(typeof(PeanutConfig), "PEANUT")]
[JsonDerivedType(typeof(PolyConfig), "POLY")]
[JsonDerivedType(typeof(PrefixTuningConfig), "PREFIX_TUNING")]
[JsonDerivedType(typeof(PromptTuningConfig), "PROMPT_TUNING")]
[JsonDerivedType(typeof(PsoftConfig), "PSOFT")]
[JsonDerivedType(typeof(PveraConfig), "PVERA")]
[JsonDerivedType(typeof(PTuningConfig), "P_TUNING")]
[JsonDerivedType(typeof(RandLoraConfig), "RANDLORA")]
[JsonDerivedType(typeof(RoadConfig), "ROAD")]
[JsonDerivedType(typeof(ShadowConfig), "SHADOW")]
[JsonDerivedType(typeof(ShiraConfig), "SHIRA")]
[JsonDerivedType(typeof(SupertuningConfig), "SUPERTUNING")]
[JsonDerivedType(typeof(TinyLoraConfig), "TINYLORA")]
[JsonDerivedType(typeof(TrainableTokensConfig), "TRAINABLE_TOKENS")]
[JsonDerivedType(typeof(UniLoraConfig), "UNILORA")]
[JsonDerivedType(typeof(VbloraConfig), "VBLORA")]
[JsonDerivedType(typeof(VeraConfig), "VERA")]
[JsonDerivedType(typeof(WaveFtConfig), "WAVEFT")]
[JsonDerivedType(typeof(XloraConfig), "XLORA")]
public abstract record AdapterConfig
{
    /// <summary>The version of PEFT whose file format is written.</summary>
    public const string FormatVersion = "0.21.0";

    /// <summary>THE list of methods: <c>peft_type</c> to the record of its settings.</summary>
    public static IReadOnlyDictionary<string, Type> Types { get; } =
        typeof(AdapterConfig).GetCustomAttributes<JsonDerivedTypeAttribute>(inherit: false)
            .ToDictionary(line => (string)line.TypeDiscriminator!, line => line.DerivedType);

    /// <summary>What the base model is used for; decides which head is kept beside the adapter.</summary>
    public TaskType? TaskType { get; init; }

    /// <summary>Name of the base model. Written for people: what fits is decided by shapes.</summary>
    public string? BaseModelNameOrPath { get; init; }

    /// <summary>Always true in a file, as PEFT writes it; it says nothing about the maths.</summary>
    public bool InferenceMode { get; init; }

    /// <summary>Set by PEFT when <see cref="TaskType"/> is absent: the Python class of the base model.</summary>
    public JsonNode? AutoMapping { get; init; }

    /// <summary>Revision of the base model on the Hub.</summary>
    public string? Revision { get; init; }

    /// <summary>The version of PEFT that wrote the file.</summary>
    public string? PeftVersion { get; init; }

    /// <summary>The value of <c>peft_type</c> for this record.</summary>
    [JsonIgnore]
    public string PeftType => Types.First(type => type.Value == GetType()).Key;

    /// <summary>
    /// Makes an adapter with these settings on <paramref name="model"/>; its weights have shapes, no tensors yet. Throws
    /// <see cref="AdapterException"/> when the settings do not fit the model.
    /// </summary>
    public abstract Adapter CreateAdapter(PretrainedModel model);

    /// <summary>Whether the method starts from what the model makes of the training data: <see cref="CreateCalibrated"/>.</summary>
    [JsonIgnore]
    internal virtual bool NeedsCalibration => false;

    /// <summary>
    /// Makes an adapter on a loaded model from what the model makes of <paramref name="data"/>. Its settings may differ from these (ranks that
    /// went where they explain most); its weights are still to be drawn by <see cref="Adapter.Initialize"/>.
    /// </summary>
    internal virtual Adapter CreateCalibrated(PretrainedModel model, CalibrationData data) => CreateAdapter(model);

    /// <summary>The finished adapters that the method works with; most have none.</summary>
    [JsonIgnore]
    public virtual IReadOnlyList<Expert> Experts => [];

    /// <summary>These settings, knowing the folder that holds those of <see cref="Experts"/>.</summary>
    internal virtual AdapterConfig WithExperts(string folder) => this;

    /// <summary>What is wrong with these settings whatever the model: field and remedy. Attributes are checked already.</summary>
    public virtual IEnumerable<ValidationResult> Validate() => [];

    /// <summary>Every fault of these settings: their ranges first, then what <see cref="Validate"/> finds.</summary>
    public IReadOnlyList<ValidationResult> Faults()
    {
        var faults = new List<ValidationResult>();
        Validator.TryValidateObject(this, new ValidationContext(this), faults, validateAllProperties: true);
        faults.AddRange(Validate());
        return faults;
    }
}
