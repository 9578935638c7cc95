using System.ComponentModel.DataAnnotations;
using System.Text.Json.Nodes;
using PeftServer.Engine.Adapters.Prompts;

namespace PeftServer.Engine.Adapters.PromptTuning;

/// <summary>
/// Prompt tuning: num_virtual_tokens trained embeddings before those of every sequence, [P; E(x)].
/// <see href="https://arxiv.org/abs/2104.08691">Lester et al. 2021</see>.
/// </summary>
public sealed record PromptTuningConfig : PromptConfig
{
    /// <summary>How the rows start: RANDOM, TEXT or SAMPLE_VOCAB.</summary>
    public PromptTuningInit PromptTuningInit { get; init; }

    /// <summary>The text whose tokens the rows start as, with TEXT.</summary>
    [MaxLength(100_000)]
    public string? PromptTuningInitText { get; init; }

    /// <summary>Settings of PEFT's tokenizer. Kept for the file; the base model's own tokenizer reads the text here.</summary>
    public JsonNode? TokenizerKwargs { get; init; }

    /// <summary>PEFT's tokenizer. Kept for the file; the base model's own tokenizer reads the text here.</summary>
    public string? TokenizerNameOrPath { get; init; }

    public override IEnumerable<ValidationResult> Validate() =>
        PromptTuningInit is PromptTuningInit.Text && string.IsNullOrEmpty(PromptTuningInitText) && !InferenceMode
            ? [new("prompt_tuning_init TEXT needs a prompt_tuning_init_text.", ["prompt_tuning_init_text"])]
            : [];

    internal override PromptEncoder CreateEncoder() =>
        new TableEncoder(NumVirtualTokens * NumTransformerSubmodules!.Value, TokenDim!.Value, (table, model, generator) =>
            PromptInit.Draw(table, PromptTuningInit, PromptTuningInitText, model, generator));
}
