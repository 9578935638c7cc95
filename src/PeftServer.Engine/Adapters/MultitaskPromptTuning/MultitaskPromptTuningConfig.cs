using System.ComponentModel.DataAnnotations;
using System.Text.Json.Nodes;
using PeftServer.Engine.Adapters.Prompts;

namespace PeftServer.Engine.Adapters.MultitaskPromptTuning;

/// <summary>
/// Multitask prompt tuning: trained embeddings before those of every sequence, one table for all tasks times a low-rank one of each task,
/// P ∘ (uₜ vₜ). Which task a sequence is of comes with it; without, it is task 0.
/// <see href="https://arxiv.org/abs/2303.02861">Wang et al. 2023</see>.
/// </summary>
public sealed record MultitaskPromptTuningConfig : PromptConfig, IKnowsTasks
{
    /// <summary>How many tasks there are.</summary>
    [Range(1, 4096)]
    public int NumTasks { get; init; } = 1;

    /// <summary>Rank of a task's own part.</summary>
    [Range(1, 4096)]
    public int NumRanks { get; init; } = 1;

    /// <summary>
    /// How the shared rows start: RANDOM, TEXT or SAMPLE_VOCAB. PEFT's ways to start from another run's file are for its own files: a job starts
    /// anew.
    /// </summary>
    public MultitaskPromptTuningInit PromptTuningInit { get; init; }

    /// <summary>The text whose tokens the shared rows start as, with TEXT.</summary>
    [MaxLength(100_000)]
    public string? PromptTuningInitText { get; init; }

    /// <summary>The file that PEFT started from; not for a job.</summary>
    public string? PromptTuningInitStateDictPath { get; init; }

    /// <summary>The task of that file; not for a job.</summary>
    public int PromptTuningInitTask { get; init; }

    /// <summary>Settings of PEFT's tokenizer. Kept for the file; the base model's own tokenizer reads the text here.</summary>
    public JsonNode? TokenizerKwargs { get; init; }

    /// <summary>PEFT's tokenizer. Kept for the file; the base model's own tokenizer reads the text here.</summary>
    public string? TokenizerNameOrPath { get; init; }

    int IKnowsTasks.TaskCount => NumTasks;

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

        if (PromptTuningInit is MultitaskPromptTuningInit.AverageSourceTasks or MultitaskPromptTuningInit.ExactSourceTask or MultitaskPromptTuningInit.OnlySourceShared)
        {
            yield return new("prompt_tuning_init starts from RANDOM, TEXT or SAMPLE_VOCAB here; a job reads no other run's file.", ["prompt_tuning_init"]);
        }

        if (PromptTuningInitStateDictPath is not null || PromptTuningInitTask != 0)
        {
            yield return new("prompt_tuning_init_state_dict_path and prompt_tuning_init_task name another run's file, which a job does not read. Remove them.", ["prompt_tuning_init_state_dict_path"]);
        }
    }

    internal override PromptEncoder CreateEncoder() => new MultitaskEncoder(this);
}
