using System.Text.Json.Serialization;

namespace PeftServer.Engine.Training.Optimizers;

/// <summary>The optimizers, by transformers' names where it has one.</summary>
public enum OptimizerName
{
    AdamwTorch,

    /// <summary>The same as adamw_torch: it is fused here.</summary>
    AdamwTorchFused,

    /// <summary>AdamW with moments in 8 bits, block by block.</summary>
    [JsonStringEnumMemberName("adamw_8bit")]
    Adamw8Bit,

    /// <summary>The same by transformers' older name.</summary>
    [JsonStringEnumMemberName("adamw_bnb_8bit")]
    AdamwBnb8Bit,

    Adafactor,

    [JsonStringEnumMemberName("lion_32bit")]
    Lion,

    Sgd,

    Adagrad,

    Rmsprop,

    Muon,

    /// <summary>LoRA with A as it was drawn.</summary>
    LoraFa,

    /// <summary>AdamW after Riemannian preconditioning of LoRA.</summary>
    RiemannianAdamw,
}

/// <summary>What some optimizers take besides, under the names of their own settings.</summary>
public sealed record OptimizerArguments
{
    /// <summary>sgd, rmsprop and muon: share of the last step that goes into the next; absent: 0, 0 and 0.95.</summary>
    public double? Momentum { get; init; }

    /// <summary>sgd and muon: step by where the momentum leads; absent: false and true.</summary>
    public bool? Nesterov { get; init; }

    /// <summary>rmsprop: α, how slowly squares are forgotten.</summary>
    public double Alpha { get; init; } = 0.99;

    /// <summary>rmsprop: the variance instead of the mean square.</summary>
    public bool Centered { get; init; }

    /// <summary>adamw_torch: the highest second moment so far counts.</summary>
    public bool Amsgrad { get; init; }

    /// <summary>riemannian_adamw: ρ, added to the Gram matrices.</summary>
    public double Regularization { get; init; } = 1e-2;

    /// <summary>muon: a rate that suits AdamW's, by "match_rms_adamw"; absent: by the shape.</summary>
    public MuonAdjustment? AdjustLrFn { get; init; }
}

public enum MuonAdjustment
{
    MatchRmsAdamw,
}
