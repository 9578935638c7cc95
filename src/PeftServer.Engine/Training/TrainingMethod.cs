using System.ComponentModel.DataAnnotations;
using PeftServer.Engine.Training.Objectives;

namespace PeftServer.Engine.Training;

/// <summary>What is learnt from the rows: a type, and settings in the object of its name. Absent settings are the defaults.</summary>
public sealed record TrainingMethod
{
    public TrainingMethodType Type { get; init; }

    public SftSettings? Supervised { get; init; }

    public DpoSettings? Dpo { get; init; }

    public CpoSettings? Cpo { get; init; }

    /// <summary>CPO's settings with SimPO's loss.</summary>
    public CpoSettings? Simpo { get; init; }

    public OrpoSettings? Orpo { get; init; }

    public KtoSettings? Kto { get; init; }

    /// <summary>The settings that count, with defaults filled in.</summary>
    internal object Settings => Type switch
    {
        TrainingMethodType.Supervised => Supervised ?? new SftSettings(),
        TrainingMethodType.Dpo => Dpo ?? new DpoSettings(),
        TrainingMethodType.Cpo => Cpo ?? new CpoSettings(),
        TrainingMethodType.Simpo => (Simpo ?? new CpoSettings { Beta = 2, CpoAlpha = 0 }) with { LossType = CpoLossType.Simpo },
        TrainingMethodType.Orpo => Orpo ?? new OrpoSettings(),
        TrainingMethodType.Kto => Kto ?? new KtoSettings(),
        _ => throw new InvalidOperationException($"There is no method {Type}."),
    };

    /// <summary>Every value out of its range: field and remedy.</summary>
    public IReadOnlyList<ValidationResult> Faults()
    {
        var settings = Settings;
        if (settings is DpoSettings dpo)
        {
            return [.. dpo.Faults()];
        }

        var faults = new List<ValidationResult>();
        Validator.TryValidateObject(settings, new ValidationContext(settings), faults, validateAllProperties: true);
        return faults;
    }
}

public enum TrainingMethodType
{
    Supervised,
    Dpo,
    Cpo,
    Simpo,
    Orpo,
    Kto,
}
