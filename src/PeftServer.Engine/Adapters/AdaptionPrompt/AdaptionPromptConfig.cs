using System.ComponentModel.DataAnnotations;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters.AdaptionPrompt;

/// <summary>
/// LLaMA-Adapter: the top layers attend to adapter_len trained vectors p beside the tokens, through a gate g that starts at zero:
/// heads + g · softmax(q (pK)ᵀ/√D) pV. <see href="https://arxiv.org/abs/2303.16199">Zhang et al. 2023</see>. For Llama, Mistral and GPT-2.
/// </summary>
public sealed record AdaptionPromptConfig : AdapterConfig
{
    /// <summary>Vectors of each adapted layer. PEFT has no default for it; here it is 10, as in the paper.</summary>
    [Range(1, 4096)]
    public int AdapterLen { get; init; } = 10;

    /// <summary>How many layers are adapted, counted from the top. PEFT has no default for it; here it is 1.</summary>
    [Range(1, 1024)]
    public int AdapterLayers { get; init; } = 1;

    /// <summary>Name of the attention modules. Absent: that of the architecture.</summary>
    public string? TargetModules { get; init; }

    public override Adapter CreateAdapter(PretrainedModel model) => model.Config.ModelType switch
    {
        "llama" or "mistral" => new AdaptionPromptAdapter(this with { TargetModules = TargetModules ?? "self_attn" }, model),
        "gpt2" => new AdaptionPromptAdapter(this with { TargetModules = TargetModules ?? "attn" }, model),
        var other => throw new AdapterException("peft_type", $"ADAPTION_PROMPT is not supported on {other}. It is on llama, mistral and gpt2."),
    };
}
