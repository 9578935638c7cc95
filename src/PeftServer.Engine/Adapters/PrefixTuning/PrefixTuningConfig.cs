using System.ComponentModel.DataAnnotations;
using PeftServer.Engine.Adapters.Prompts;

namespace PeftServer.Engine.Adapters.PrefixTuning;

/// <summary>
/// Prefix tuning: every layer's attention sees num_virtual_tokens trained keys and values before a sequence's own:
/// softmax(q[P_K; K]ᵀ)[P_V; V]. <see href="https://arxiv.org/abs/2101.00190">Li and Liang 2021</see>.
/// </summary>
public sealed record PrefixTuningConfig : PromptConfig
{
    /// <summary>Width of the network that makes the prefix, with prefix_projection. Absent: token_dim.</summary>
    [Range(1, 65536)]
    public int? EncoderHiddenSize { get; init; }

    /// <summary>Absent: drawn from a normal distribution; "zero": keys and values start at zero.</summary>
    public string? InitWeights { get; init; }

    /// <summary>
    /// Train the prefix through a network, W₂ tanh(W₁ e), which is left behind when it is saved; a loaded one cannot train on.
    /// </summary>
    public bool PrefixProjection { get; init; }

    internal override bool IsPrefix => true;

    public override IEnumerable<ValidationResult> Validate() => InitWeights is null or "zero" ? [] :
    [
        new($"init_weights is '{InitWeights}'; it must be \"zero\", or absent for random ones.", ["init_weights"]),
    ];

    internal override PromptConfig WithWidths(int tokenDim) => this with { EncoderHiddenSize = EncoderHiddenSize ?? tokenDim };

    internal override PromptEncoder CreateEncoder()
    {
        var width = NumLayers!.Value * 2 * TokenDim!.Value;
        return PrefixProjection
            ? new PrefixProjectionEncoder(NumVirtualTokens, TokenDim.Value, EncoderHiddenSize!.Value, width, InitWeights == "zero")
            : new TableEncoder(NumVirtualTokens, width, InitWeights == "zero" ? (table, model, _) => table.Zeros(model.Device) : null);
    }
}
