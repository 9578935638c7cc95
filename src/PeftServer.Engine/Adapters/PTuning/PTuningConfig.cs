using System.ComponentModel.DataAnnotations;
using System.Text.Json.Serialization;
using PeftServer.Engine.Adapters.Prompts;

namespace PeftServer.Engine.Adapters.PTuning;

/// <summary>
/// P-tuning: embeddings before those of every sequence that a small network makes from a trained table, which steadies their training. The
/// network is left behind when they are saved, so a loaded one cannot train on. <see href="https://arxiv.org/abs/2103.10385">Liu et al. 2021</see>.
/// </summary>
public sealed record PTuningConfig : PromptConfig
{
    /// <summary>MLP: W₃ relu(W₂ relu(W₁ e)); LSTM: a bidirectional LSTM over the rows, then W₂ relu(W₁ h).</summary>
    public PromptEncoderReparameterizationType EncoderReparameterizationType { get; init; }

    /// <summary>Width of the network. Absent: token_dim.</summary>
    [Range(1, 65536)]
    public int? EncoderHiddenSize { get; init; }

    /// <summary>Layers of the LSTM; an MLP has always the same.</summary>
    [Range(1, 64)]
    public int EncoderNumLayers { get; init; } = 2;

    /// <summary>Chance that a value between layers of the LSTM is dropped in training; an MLP drops none.</summary>
    [Range(0.0, 0.99)]
    public double EncoderDropout { get; init; }

    internal override PromptConfig WithWidths(int tokenDim) => this with { EncoderHiddenSize = EncoderHiddenSize ?? tokenDim };

    internal override PromptEncoder CreateEncoder()
    {
        var rows = NumVirtualTokens * NumTransformerSubmodules!.Value;
        return EncoderReparameterizationType is PromptEncoderReparameterizationType.Lstm
            ? new LstmPromptEncoder(rows, TokenDim!.Value, EncoderHiddenSize!.Value, EncoderNumLayers, EncoderDropout)
            : new MlpPromptEncoder(rows, TokenDim!.Value, EncoderHiddenSize!.Value);
    }
}

/// <summary>The network behind the embeddings, by PEFT's names.</summary>
public enum PromptEncoderReparameterizationType
{
    [JsonStringEnumMemberName("MLP")]
    Mlp,

    [JsonStringEnumMemberName("LSTM")]
    Lstm,
}
