using System.ComponentModel.DataAnnotations;
using PeftServer.Engine.Adapters.Prompts;

namespace PeftServer.Engine.Adapters.Cartridge;

/// <summary>
/// Cartridge: a trained cache of keys and values that stands for a long text, served like a prefix. Its first tokens stay as they are, a
/// sink that attention leans on. <see href="https://arxiv.org/abs/2506.06266">Eyuboglu et al. 2025</see>.
/// </summary>
public sealed record CartridgeConfig : PromptConfig
{
    /// <summary>Virtual tokens at the beginning that do not train, from 0 to num_virtual_tokens.</summary>
    [Range(0, 16384)]
    public int NumFrozenTokens { get; init; } = 1;

    internal override bool IsPrefix => true;

    public override IEnumerable<ValidationResult> Validate() => NumFrozenTokens < NumVirtualTokens ? [] :
    [
        new($"num_frozen_tokens is {NumFrozenTokens} of {NumVirtualTokens} virtual tokens, so nothing would train. Freeze fewer.", ["num_frozen_tokens"]),
    ];

    internal override PromptEncoder CreateEncoder() => new CartridgeEncoder(NumVirtualTokens, NumFrozenTokens, NumLayers!.Value * 2 * TokenDim!.Value);
}
