using System.ComponentModel.DataAnnotations;
using System.Globalization;
using System.Text.Json.Serialization;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters.Xlora;

/// <summary>
/// X-LoRA: finished LoRA adapters as experts, whose mix a trained classifier chooses for every token: y = Wx + Σₑ BₑAₑ(sₑ x), with s from the
/// last hidden state h of the base alone: a first pass, then a second one with the experts.
/// <see href="https://arxiv.org/abs/2402.07148">Buehler and Buehler 2024</see>. For causal language models.
/// </summary>
public sealed record XloraConfig : AdapterConfig
{
    private const int MostExperts = 64;

    /// <summary>
    /// The experts by number, "0", "1" and so on (PEFT loads others and does not use them). In a job: the ids of fine-tuned models of the same
    /// base. In a file: where they came from; they themselves are in the folders 0, 1, … beside it.
    /// </summary>
    public IReadOnlyDictionary<string, string> Adapters { get; init; } = new Dictionary<string, string>();

    /// <summary>Width of the base's hidden state. Absent: the model's.</summary>
    public int? HiddenSize { get; init; }

    /// <summary>Layers of the classifier.</summary>
    [Range(1, 64)]
    public int XloraDepth { get; init; } = 1;

    /// <summary>Width of the classifier's inner layers, where it has more than one.</summary>
    [Range(1, 65536)]
    public int XloraSize { get; init; } = 2048;

    /// <summary>Chance that a value between layers of the classifier is dropped in training.</summary>
    [Range(0.0, 0.99)]
    public double XloraDropoutP { get; init; } = 0.2;

    /// <summary>A mix for each adapted module; otherwise one for all.</summary>
    public bool LayerwiseScalings { get; init; }

    /// <summary>The mix of a token adds up to one.</summary>
    public bool EnableSoftmax { get; init; } = true;

    /// <summary>The mix of the best adds up to one, with top_k_lora.</summary>
    public bool EnableSoftmaxTopk { get; init; }

    /// <summary>Divides the scores before the softmax; lower is sharper.</summary>
    [Range(1e-6, 1e6)]
    public double SoftmaxTemperature { get; init; } = 1;

    /// <summary>Only so many of the best experts work for a token. Absent: all.</summary>
    [Range(1, 64)]
    public int? TopKLora { get; init; }

    /// <summary>The mix of the first pass: 0 is the base alone.</summary>
    [Range(-1e6, 1e6)]
    public double ScalingPassValue { get; init; }

    /// <summary>Factor of all that the experts add.</summary>
    [Range(-1e6, 1e6)]
    public double GlobalScalingWeight { get; init; } = 1;

    /// <summary>The experts train too.</summary>
    public bool UseTrainableAdapters { get; init; }

    /// <summary>Where the experts are, in folders 0, 1, …; set by who knows it.</summary>
    [JsonIgnore]
    public string? ExpertFolder { get; init; }

    [JsonIgnore]
    public override IReadOnlyList<Expert> Experts => [.. Adapters.Select(entry => new Expert(entry.Key, $"adapters.{entry.Key}", entry.Value))];

    internal override AdapterConfig WithExperts(string folder) => this with { ExpertFolder = folder };

    public override IEnumerable<ValidationResult> Validate()
    {
        if (Adapters.Count is 0 or > MostExperts)
        {
            yield return new($"X-LoRA mixes 1 to {MostExperts} experts, not {Adapters.Count}. Name fine-tuned models: {{\"0\": \"ft:…\", \"1\": \"ft:…\"}}.", ["adapters"]);
        }

        if (!Enumerable.Range(0, Adapters.Count).All(i => Adapters.ContainsKey(i.ToString(CultureInfo.InvariantCulture))))
        {
            yield return new("The keys of adapters must be \"0\", \"1\" and so on, as PEFT names the experts when it loads them.", ["adapters"]);
        }

        if (TopKLora > Adapters.Count)
        {
            yield return new($"top_k_lora is {TopKLora}, but there are {Adapters.Count} experts.", ["top_k_lora"]);
        }

        if (TaskType is not (null or PeftServer.Engine.Adapters.TaskType.CausalLm))
        {
            yield return new("X-LoRA works with task_type CAUSAL_LM only.", ["task_type"]);
        }
    }

    public override Adapter CreateAdapter(PretrainedModel model)
    {
        if (ExpertFolder is null)
        {
            throw new AdapterException("adapters", "X-LoRA needs the folders of its experts beside its own. Train it as a job whose adapters are fine-tuned models.");
        }

        if (HiddenSize is { } given && given != model.HiddenSize)
        {
            throw new AdapterException("hidden_size", $"The model's is {model.HiddenSize}, not {given}. Leave the field out.");
        }

        return new XloraAdapter(this with { HiddenSize = model.HiddenSize }, model);
    }
}
