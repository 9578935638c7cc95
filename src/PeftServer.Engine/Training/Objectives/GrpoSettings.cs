using System.ComponentModel.DataAnnotations;
using PeftServer.Engine.Evaluation.Graders;

namespace PeftServer.Engine.Training.Objectives;

/// <summary>Settings of group relative policy optimization, under TRL's names.</summary>
public record GrpoSettings : IMethodSettings
{
    /// <summary>What gives a completion its reward.</summary>
    public Grader? Grader { get; init; }

    public GrpoLossType LossType { get; init; } = GrpoLossType.Dapo;

    /// <summary>Completions to a prompt: the group that rewards are compared within.</summary>
    [Range(2, 1024)]
    public int NumGenerations { get; init; } = 8;

    /// <summary>µ of the paper: how often each completion is learnt from, while what wrote it is kept as the old policy and the ratio to it is clipped.</summary>
    [Range(1, 1024)]
    public int NumIterations { get; init; } = 1;

    /// <summary>Micro-batches of per_device_train_batch_size completions that are written at once; absent: gradient_accumulation_steps.</summary>
    [Range(1, 65_536)]
    public int? StepsPerGeneration { get; init; }

    /// <summary>Completions that are written at once: another way to say <see cref="StepsPerGeneration"/>.</summary>
    [Range(2, 1_000_000)]
    public int? GenerationBatchSize { get; init; }

    /// <summary>Tokens a completion may have; dr_grpo divides by it.</summary>
    [Range(1, 1_000_000)]
    public int MaxCompletionLength { get; init; } = 256;

    /// <summary>Weight of the divergence from the reference; 0: there is no reference.</summary>
    [Range(0.0, 1e3)]
    public double Beta { get; init; }

    /// <summary>What β holds the policy to; absent: the adapter that the run starts from, frozen, or the base where it starts from none, as TRL's trainer does.</summary>
    public PreferenceReference? Reference { get; init; }

    /// <summary>The ratio is clipped below 1 − ε.</summary>
    [Range(0.0, 1.0)]
    public double Epsilon { get; init; } = 0.2;

    /// <summary>The ratio is clipped above 1 + this; absent: <see cref="Epsilon"/>. For cispo it is the cap itself.</summary>
    [Range(0.0, 1e3)]
    public double? EpsilonHigh { get; init; }

    /// <summary>An upper bound of the unclipped branch too (INTELLECT-2); absent: none.</summary>
    [Range(1.0, 1e3)]
    public double? Delta { get; init; }

    public ImportanceSamplingLevel ImportanceSamplingLevel { get; init; }

    public RewardScale ScaleRewards { get; init; } = RewardScale.Group;

    /// <summary>Divides the logits of policy, old policy and reference.</summary>
    [Range(1e-3, 100.0)]
    public double Temperature { get; init; } = 1;

    /// <summary>Completions are drawn from the likeliest tokens that together have this probability.</summary>
    [Range(1e-3, 1.0)]
    public double TopP { get; init; } = 1;

    /// <summary>Completions are drawn from this many of the likeliest tokens; 0: all.</summary>
    [Range(0, 1_000_000)]
    public int TopK { get; init; }

    /// <summary>Only this share of tokens, those with the highest entropy, is in the policy term.</summary>
    [Range(0.0, 1.0)]
    public double TopEntropyQuantile { get; init; } = 1;

    /// <summary>Weight of a bonus for entropy.</summary>
    [Range(0.0, 1e3)]
    public double EntropyCoef { get; init; }

    /// <summary>The divergence is weighted by the ratio to the old policy, with its gradient, which makes its estimate unbiased.</summary>
    public bool UseBiasCorrectionKl { get; init; } = true;

    /// <summary>SAPO's temperature where the advantage is not positive.</summary>
    [Range(1e-3, 1e3)]
    public double SapoTemperatureNeg { get; init; } = 1.05;

    /// <summary>SAPO's temperature where the advantage is positive.</summary>
    [Range(1e-3, 1e3)]
    public double SapoTemperaturePos { get; init; } = 1;

    /// <summary>Completions that were cut off teach nothing; their rewards still count in their group.</summary>
    public bool MaskTruncatedCompletions { get; init; }

    public IEnumerable<ValidationResult> Contradictions()
    {
        if (StepsPerGeneration is not null && GenerationBatchSize is not null)
        {
            yield return new("steps_per_generation and generation_batch_size say the same thing. Keep one of them.", ["generation_batch_size"]);
        }

        if (Grader is null)
        {
            yield return new("grpo needs a grader: what gives a completion its reward. Add {\"type\": \"string_check\", …} or {\"type\": \"text_similarity\", …}.", ["grader"]);
        }

        foreach (var fault in Grader?.Faults() ?? [])
        {
            yield return new(fault.ErrorMessage, fault.MemberNames.Select(field => $"grader.{field}"));
        }
    }
}

/// <summary>How tokens are weighed and summed. Each is documented where it is computed.</summary>
public enum GrpoLossType
{
    Grpo,
    Bnpo,
    DrGrpo,
    Dapo,
    Cispo,
    Sapo,
    Luspo,
}

/// <summary>Whether the ratio to the old policy is a token's or its whole completion's (GSPO).</summary>
public enum ImportanceSamplingLevel
{
    Token,
    Sequence,
}

/// <summary>What advantages are divided by: the deviation within the group, over the batch, or nothing.</summary>
public enum RewardScale
{
    Group,
    Batch,
    None,
}
