using System.ComponentModel.DataAnnotations;
using PeftServer.Engine.Adapters.Prompts;

namespace PeftServer.Engine.Adapters.Cpt;

/// <summary>
/// Context-aware prompt tuning: worked examples as tokens before every sequence, whose embeddings move a little, E(c) + δ with |δᵢ| ≤ εᵢ, and
/// whose labels count in the loss. <see href="https://arxiv.org/abs/2410.17222">Blau et al. 2024</see>. For causal language models.
/// </summary>
public sealed record CptConfig : PromptConfig
{
    private readonly IReadOnlyList<int> _ids = [0];

    public CptConfig() => NumVirtualTokens = 1;

    /// <summary>The tokens of the examples. Their count is num_virtual_tokens.</summary>
    [MinLength(1)]
    public IReadOnlyList<int> CptTokenIds
    {
        get => _ids;
        init => (_ids, NumVirtualTokens) = (value, value.Count);
    }

    /// <summary>Which of them are seen; PEFT writes it and uses it nowhere. Absent: all.</summary>
    public IReadOnlyList<int>? CptMask { get; init; }

    /// <summary>
    /// What each token is, in example e from 0 on: 4e+1 template of the input, 4e+2 input, 4e+3 template of the output, 4e+4 label; 0: none of
    /// it. Labels do not move; they count in the loss. Absent: all are template, 1.
    /// </summary>
    public IReadOnlyList<int>? CptTokensTypeMask { get; init; }

    /// <summary>none: labels of the examples count like those of a row; decay: less, the farther back an example is.</summary>
    [AllowedValues("none", "decay")]
    public string OptWeightedLossType { get; init; } = "none";

    /// <summary>Factor from one example to the one before it, with decay.</summary>
    [Range(0.0, 1e6)]
    public double OptLossDecayFactor { get; init; } = 1;

    /// <summary>How far an input token's embedding may move, for a width of 2048.</summary>
    [Range(0.0, 1e6)]
    public double OptProjectionEpsilon { get; init; } = 0.1;

    /// <summary>How far a template token's embedding may move, for a width of 2048.</summary>
    [Range(0.0, 1e6)]
    public double OptProjectionFormatEpsilon { get; init; } = 0.1;

    /// <summary>PEFT's tokenizer. Kept for the file.</summary>
    public string? TokenizerNameOrPath { get; init; }

    public override IEnumerable<ValidationResult> Validate()
    {
        if (NumVirtualTokens != CptTokenIds.Count || (CptMask?.Count ?? NumVirtualTokens) != NumVirtualTokens || (CptTokensTypeMask?.Count ?? NumVirtualTokens) != NumVirtualTokens)
        {
            yield return new("cpt_token_ids, cpt_mask and cpt_tokens_type_mask must have the same length, num_virtual_tokens. Leave out what you did not set.", ["cpt_token_ids"]);
        }

        if (TaskType is not (null or Adapters.TaskType.CausalLm))
        {
            yield return new("CPT works with task_type CAUSAL_LM only.", ["task_type"]);
        }

        if (NumTransformerSubmodules is not (null or 1))
        {
            yield return new("num_transformer_submodules is 1 for CPT. Leave it out.", ["num_transformer_submodules"]);
        }
    }

    internal override PromptConfig WithWidths(int tokenDim) => this with
    {
        CptMask = CptMask ?? [.. CptTokenIds.Select(_ => 1)],
        CptTokensTypeMask = CptTokensTypeMask ?? [.. CptTokenIds.Select(_ => 1)],
    };

    internal override PromptEncoder CreateEncoder() => new CptEncoder(this);
}
