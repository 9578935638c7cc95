using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization;
using PeftServer.Engine;
using PeftServer.Engine.Training;
using PeftServer.Engine.Training.Objectives;

namespace PeftServer.Api.FineTuning;

/// <summary>An objective, and in the object of its name its settings and OpenAI's hyperparameters.</summary>
public sealed record FineTuneMethod
{
    /// <summary>What is learnt. The settings are in the field of that name.</summary>
    public required TrainingMethodType Type { get; init; }

    /// <summary>Supervised fine-tuning: rows of messages, prompt and completion, instructions, text.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public SupervisedMethod? Supervised { get; init; }

    /// <summary>Direct preference optimisation: rows with a better and a worse answer.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public DpoMethod? Dpo { get; init; }

    /// <summary>Contrastive preference optimisation: rows with a better and a worse answer, no reference model.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public CpoMethod? Cpo { get; init; }

    /// <summary>Simple preference optimisation: rows with a better and a worse answer, no reference model.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public SimpoMethod? Simpo { get; init; }

    /// <summary>Odds ratio preference optimisation: rows with a better and a worse answer, no reference model.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public OrpoMethod? Orpo { get; init; }

    /// <summary>Kahneman-Tversky optimisation: rows with an answer that is good or bad, or pairs.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public KtoMethod? Kto { get; init; }

    /// <summary>Reward modelling: rows with a better and a worse answer, and a head of one number.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public RewardMethod? Reward { get; init; }

    /// <summary>Group relative policy optimisation: prompts, which the model answers itself, and a grader.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public GrpoMethod? Grpo { get; init; }

    /// <summary>Continued pretraining: every token of every row.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public PretrainingMethod? Pretraining { get; init; }

    /// <summary>Classes of texts: rows of text and label.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public ClassificationMethod? Classification { get; init; }

    /// <summary>Tags of words: rows of tokens and tags.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public TokenClassificationMethod? TokenClassification { get; init; }

    /// <summary>Answers within texts: rows as SQuAD's.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public QuestionAnsweringMethod? QuestionAnswering { get; init; }

    /// <summary>Models that read one text and write another: rows of source and target.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    [JsonPropertyName("seq2seq")]
    public Seq2SeqMethod? Seq2Seq { get; init; }

    /// <summary>Vectors of texts: rows of texts that are alike.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public EmbeddingMethod? Embedding { get; init; }

    /// <summary>The name of <see cref="Type"/> on the wire, which is that of its field.</summary>
    internal string Name => JsonSerializer.SerializeToElement(Type, PeftJson.Options).GetString()!;

    /// <summary>OpenAI's hyperparameters, wherever they are given.</summary>
    internal Hyperparameters? Hyperparameters => Type is TrainingMethodType.Dpo
        ? Dpo?.Hyperparameters
        : Fields()[Name]?["hyperparameters"]?.Deserialize<Hyperparameters>(PeftJson.Options);

    /// <summary>Fields of other methods than <see cref="Type"/>'s.</summary>
    internal IEnumerable<string> Others => Fields().Select(entry => entry.Key).Where(name => name != "type" && name != Name);

    /// <summary>As the trainer has it: with every default, without OpenAI's hyperparameters.</summary>
    internal TrainingMethod ToTraining()
    {
        var settings = Fields()[Name]?.DeepClone().AsObject() ?? [];
        settings.Remove("hyperparameters");
        var method = new JsonObject { ["type"] = Name, [Name] = settings }.Deserialize<TrainingMethod>(PeftJson.Options)!;
        return Dpo?.Hyperparameters?.Beta?.Value is { } beta && Type is TrainingMethodType.Dpo ? method with { Dpo = method.Dpo! with { Beta = beta } } : method;
    }

    /// <summary>As a job shows it.</summary>
    internal static FineTuneMethod From(TrainingMethod method, Hyperparameters hyperparameters)
    {
        var settings = JsonSerializer.SerializeToNode(method.Given, method.Given.GetType(), PeftJson.Options)!.AsObject();
        settings["hyperparameters"] = JsonSerializer.SerializeToNode(hyperparameters, PeftJson.Options);
        var name = JsonSerializer.SerializeToElement(method.Type, PeftJson.Options).GetString()!;
        return new JsonObject { ["type"] = name, [name] = settings }.Deserialize<FineTuneMethod>(PeftJson.Options)!;
    }

    private JsonObject Fields() => JsonSerializer.SerializeToNode(this, PeftJson.Options)!.AsObject();
}

/// <summary>Supervised fine-tuning.</summary>
public sealed record SupervisedMethod : SftSettings
{
    public Hyperparameters? Hyperparameters { get; init; }
}

/// <summary>Direct preference optimisation.</summary>
public sealed record DpoMethod : DpoSettings
{
    public DpoHyperparameters? Hyperparameters { get; init; }
}

/// <summary>OpenAI's hyperparameters of DPO.</summary>
public sealed record DpoHyperparameters : Hyperparameters
{
    /// <summary>How closely the policy is held to the reference. The same as <c>method.dpo.beta</c>.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public AutoNumber? Beta { get; init; }
}

/// <summary>Contrastive preference optimisation.</summary>
public sealed record CpoMethod : CpoSettings
{
    public Hyperparameters? Hyperparameters { get; init; }
}

/// <summary>Simple preference optimisation.</summary>
public sealed record SimpoMethod : SimpoSettings
{
    public Hyperparameters? Hyperparameters { get; init; }
}

/// <summary>Odds ratio preference optimisation.</summary>
public sealed record OrpoMethod : OrpoSettings
{
    public Hyperparameters? Hyperparameters { get; init; }
}

/// <summary>Kahneman-Tversky optimisation.</summary>
public sealed record KtoMethod : KtoSettings
{
    public Hyperparameters? Hyperparameters { get; init; }
}

/// <summary>Reward modelling.</summary>
public sealed record RewardMethod : RewardSettings
{
    public Hyperparameters? Hyperparameters { get; init; }
}

/// <summary>Group relative policy optimisation.</summary>
public sealed record GrpoMethod : GrpoSettings
{
    public Hyperparameters? Hyperparameters { get; init; }
}

/// <summary>Continued pretraining.</summary>
public sealed record PretrainingMethod : PretrainingSettings
{
    public Hyperparameters? Hyperparameters { get; init; }
}

/// <summary>Classes of texts.</summary>
public sealed record ClassificationMethod : ClassificationSettings
{
    public Hyperparameters? Hyperparameters { get; init; }
}

/// <summary>Tags of words.</summary>
public sealed record TokenClassificationMethod : TokenClassificationSettings
{
    public Hyperparameters? Hyperparameters { get; init; }
}

/// <summary>Answers within texts.</summary>
public sealed record QuestionAnsweringMethod : QuestionAnsweringSettings
{
    public Hyperparameters? Hyperparameters { get; init; }
}

/// <summary>Models that read one text and write another.</summary>
public sealed record Seq2SeqMethod : Seq2SeqSettings
{
    public Hyperparameters? Hyperparameters { get; init; }
}

/// <summary>Vectors of texts.</summary>
public sealed record EmbeddingMethod : EmbeddingSettings
{
    public Hyperparameters? Hyperparameters { get; init; }
}
