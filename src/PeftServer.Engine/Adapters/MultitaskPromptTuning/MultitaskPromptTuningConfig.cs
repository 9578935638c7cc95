using System.ComponentModel.DataAnnotations;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization;
using PeftServer.Engine.Adapters.Prompts;

namespace PeftServer.Engine.Adapters.MultitaskPromptTuning;

/// <summary>
/// Multitask prompt tuning: trained embeddings before those of every sequence, one table for all tasks times a low-rank one of each task,
/// P ∘ (uₜ vₜ). Which task a sequence is of comes with it; without, it is task 0.
/// <see href="https://arxiv.org/abs/2303.02861">Wang et al. 2023</see>.
/// </summary>
public sealed record MultitaskPromptTuningConfig : PromptConfig, IKnowsTasks
{
    private const string SourceName = "source";

    /// <summary>How many tasks there are.</summary>
    [Range(1, 4096)]
    public int NumTasks { get; init; } = 1;

    /// <summary>Rank of a task's own part.</summary>
    [Range(1, 4096)]
    public int NumRanks { get; init; } = 1;

    /// <summary>
    /// How the rows start: RANDOM, TEXT or SAMPLE_VOCAB; or from another multitask prompt, its shared rows alone (ONLY_SOURCE_SHARED), or with
    /// the part of one of its tasks (EXACT_SOURCE_TASK) or the mean of them (AVERAGE_SOURCE_TASKS), which start a single task.
    /// </summary>
    public MultitaskPromptTuningInit PromptTuningInit { get; init; }

    /// <summary>The text whose tokens the shared rows start as, with TEXT.</summary>
    [MaxLength(100_000)]
    public string? PromptTuningInitText { get; init; }

    /// <summary>
    /// The prompt to start from. In a job: the id of a fine-tuned model of the same base. Where no server stands between: a path of its
    /// adapter_model.safetensors. In a file: where it came from.
    /// </summary>
    [MaxLength(4096)]
    public string? PromptTuningInitStateDictPath { get; init; }

    /// <summary>The task of that prompt, with EXACT_SOURCE_TASK.</summary>
    [Range(0, 4095)]
    public int PromptTuningInitTask { get; init; }

    /// <summary>Settings of PEFT's tokenizer. Kept for the file; the base model's own tokenizer reads the text here.</summary>
    public JsonNode? TokenizerKwargs { get; init; }

    /// <summary>PEFT's tokenizer. Kept for the file; the base model's own tokenizer reads the text here.</summary>
    public string? TokenizerNameOrPath { get; init; }

    int IKnowsTasks.TaskCount => NumTasks;

    /// <summary>Where the prompt to start from is, in the folder <see cref="SourceName"/>; set by who knows it.</summary>
    [JsonIgnore]
    public string? SourceFolder { get; init; }

    [JsonIgnore]
    public override IReadOnlyList<Expert> Experts =>
        HasSource && PromptTuningInitStateDictPath is { } path ? [new Expert(SourceName, "prompt_tuning_init_state_dict_path", path)] : [];

    /// <summary>The file of the prompt to start from; null where the rows start otherwise, or did long ago.</summary>
    internal string? SourceFile => !HasSource ? null : SourceFolder is null ? PromptTuningInitStateDictPath : Path.Combine(SourceFolder, SourceName, AdapterFile.WeightsName);

    private bool HasSource => !InferenceMode
        && PromptTuningInit is MultitaskPromptTuningInit.AverageSourceTasks or MultitaskPromptTuningInit.ExactSourceTask or MultitaskPromptTuningInit.OnlySourceShared;

    internal override AdapterConfig WithExperts(string folder) => this with { SourceFolder = folder };

    public override IEnumerable<ValidationResult> Validate()
    {
        if (InferenceMode)
        {
            yield break; // a finished adapter, however it started
        }

        if (PromptTuningInit is MultitaskPromptTuningInit.Text && string.IsNullOrEmpty(PromptTuningInitText))
        {
            yield return new("prompt_tuning_init TEXT needs a prompt_tuning_init_text.", ["prompt_tuning_init_text"]);
        }

        if (HasSource && string.IsNullOrEmpty(PromptTuningInitStateDictPath))
        {
            yield return new("prompt_tuning_init starts from another prompt. Name it: prompt_tuning_init_state_dict_path.", ["prompt_tuning_init_state_dict_path"]);
        }

        if (!HasSource && PromptTuningInitStateDictPath is not null)
        {
            yield return new("prompt_tuning_init_state_dict_path names a prompt that prompt_tuning_init does not start from. Remove it, or choose AVERAGE_SOURCE_TASKS, EXACT_SOURCE_TASK or ONLY_SOURCE_SHARED.", ["prompt_tuning_init_state_dict_path"]);
        }

        if (PromptTuningInit is MultitaskPromptTuningInit.AverageSourceTasks or MultitaskPromptTuningInit.ExactSourceTask && NumTasks != 1)
        {
            yield return new($"prompt_tuning_init starts one task, not {NumTasks}. Set num_tasks to 1, or start from ONLY_SOURCE_SHARED.", ["num_tasks"]);
        }
    }

    internal override PromptEncoder CreateEncoder() => new MultitaskEncoder(this);
}
