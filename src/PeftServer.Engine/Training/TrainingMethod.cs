using System.ComponentModel.DataAnnotations;
using System.Text.Json.Serialization;
using PeftServer.Engine.Adapters;
using PeftServer.Engine.Data;
using PeftServer.Engine.Models;
using PeftServer.Engine.Training.Objectives;

namespace PeftServer.Engine.Training;

/// <summary>What is learnt from the rows: a type, and settings in the object of its name. Absent settings are the defaults.</summary>
public sealed record TrainingMethod
{
    public TrainingMethodType Type { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public SftSettings? Supervised { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public PretrainingSettings? Pretraining { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public DpoSettings? Dpo { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public CpoSettings? Cpo { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public SimpoSettings? Simpo { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public OrpoSettings? Orpo { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public KtoSettings? Kto { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public RewardSettings? Reward { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public GrpoSettings? Grpo { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public ClassificationSettings? Classification { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public TokenClassificationSettings? TokenClassification { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public QuestionAnsweringSettings? QuestionAnswering { get; init; }

    [JsonPropertyName("seq2seq")]
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public Seq2SeqSettings? Seq2Seq { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public EmbeddingSettings? Embedding { get; init; }

    /// <summary>The settings that count, with defaults filled in. SimPO's are those of CPO with its loss.</summary>
    [JsonIgnore]
    public object Settings => Given is SimpoSettings simpo ? simpo.ToCpo() : Given;

    /// <summary>The object of the method's name, with defaults filled in.</summary>
    [JsonIgnore]
    public object Given => Type switch
    {
        TrainingMethodType.Supervised => Supervised ?? new SftSettings(),
        TrainingMethodType.Pretraining => Pretraining ?? new PretrainingSettings(),
        TrainingMethodType.Dpo => Dpo ?? new DpoSettings(),
        TrainingMethodType.Cpo => Cpo ?? new CpoSettings(),
        TrainingMethodType.Simpo => Simpo ?? new SimpoSettings(),
        TrainingMethodType.Orpo => Orpo ?? new OrpoSettings(),
        TrainingMethodType.Kto => Kto ?? new KtoSettings(),
        TrainingMethodType.Reward => Reward ?? new RewardSettings(),
        TrainingMethodType.Grpo => Grpo ?? new GrpoSettings(),
        TrainingMethodType.Classification => Classification ?? new ClassificationSettings(),
        TrainingMethodType.TokenClassification => TokenClassification ?? new TokenClassificationSettings(),
        TrainingMethodType.QuestionAnswering => QuestionAnswering ?? new QuestionAnsweringSettings(),
        TrainingMethodType.Seq2Seq => Seq2Seq ?? new Seq2SeqSettings(),
        TrainingMethodType.Embedding => Embedding ?? new EmbeddingSettings(),
        _ => throw new InvalidOperationException($"There is no method {Type}."),
    };

    /// <summary>What the model is used for, as <c>task_type</c> of its adapter says it.</summary>
    [JsonIgnore]
    public TaskType TaskType => Type switch
    {
        TrainingMethodType.Reward or TrainingMethodType.Classification => TaskType.SequenceClassification,
        TrainingMethodType.TokenClassification => TaskType.TokenClassification,
        TrainingMethodType.QuestionAnswering => TaskType.QuestionAnswering,
        TrainingMethodType.Seq2Seq => TaskType.Seq2SeqLm,
        TrainingMethodType.Embedding => TaskType.FeatureExtraction,
        _ => TaskType.CausalLm,
    };

    /// <summary>What the policy is held to, as far as the settings say; null: as the run starts.</summary>
    [JsonIgnore]
    public PreferenceReference? Reference => Settings switch
    {
        DpoSettings settings => settings.Reference,
        KtoSettings settings => settings.Reference,
        GrpoSettings settings => settings.Reference,
        _ => null,
    };

    /// <summary>Names of the models that the method's grader embeds texts by.</summary>
    [JsonIgnore]
    public IEnumerable<string> EmbeddingModels => (Settings as GrpoSettings)?.Grader?.EmbeddingModels.Distinct() ?? [];

    /// <summary>Whether the method measures the policy against a reference.</summary>
    [JsonIgnore]
    public bool HasReference => Settings is DpoSettings or KtoSettings or GrpoSettings { Beta: > 0 };

    /// <summary>The head that is trained.</summary>
    [JsonIgnore]
    public ModelHead Head => ModelCatalog.HeadFor(TaskType)!.Value;

    /// <summary>The format that rows must have; null where several will do and each is known by its fields.</summary>
    [JsonIgnore]
    public DatasetFormat? Format => Type switch
    {
        TrainingMethodType.Grpo => DatasetFormat.Prompts,
        TrainingMethodType.Classification => DatasetFormat.Classification,
        TrainingMethodType.TokenClassification => DatasetFormat.TokenClassification,
        TrainingMethodType.QuestionAnswering => DatasetFormat.Squad,
        TrainingMethodType.Seq2Seq => DatasetFormat.Seq2Seq,
        TrainingMethodType.Embedding => DatasetFormat.Embedding,
        _ => null,
    };

    /// <summary>The classes that the settings name; null where there are none to name.</summary>
    [JsonIgnore]
    public IReadOnlyList<string>? Labels => Settings switch
    {
        ClassificationSettings settings => settings.Labels,
        TokenClassificationSettings settings => settings.Labels,
        _ => null,
    };

    /// <summary>Every value out of its range: field and remedy.</summary>
    public IReadOnlyList<ValidationResult> Faults()
    {
        var settings = Given;
        var faults = new List<ValidationResult>();
        Validator.TryValidateObject(settings, new ValidationContext(settings), faults, validateAllProperties: true);
        return [.. faults, .. (settings as IMethodSettings)?.Contradictions() ?? []];
    }

    /// <summary>What contradicts how the run trains: field of the method and remedy.</summary>
    public IEnumerable<ValidationResult> Faults(TrainingArguments training) => Settings is GrpoSettings settings ? RolloutPlan.Faults(training, settings) : [];
}

/// <summary>Settings that can contradict each other, beyond the range of each.</summary>
public interface IMethodSettings
{
    /// <summary>What is contradictory: field and remedy.</summary>
    IEnumerable<ValidationResult> Contradictions();
}

/// <summary>What can be learnt. The names are those of the objects that hold the settings.</summary>
public enum TrainingMethodType
{
    Supervised,
    Dpo,
    Cpo,
    Simpo,
    Orpo,
    Kto,
    Reward,
    Grpo,
    Pretraining,
    Classification,
    TokenClassification,
    QuestionAnswering,
    [JsonStringEnumMemberName("seq2seq")]
    Seq2Seq,
    Embedding,
}
