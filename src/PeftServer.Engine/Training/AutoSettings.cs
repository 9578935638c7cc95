using PeftServer.Engine.Adapters;
using PeftServer.Engine.Data;

namespace PeftServer.Engine.Training;

/// <summary>What a careful engineer would take for OpenAI's three hyperparameters, given the data, the method and the model; each with its reason.</summary>
public static class AutoSettings
{
    public const string Epochs = "n_epochs", BatchSize = "batch_size", LearningRate = "learning_rate_multiplier";

    /// <summary>Tokens of a batch beyond which its rows are fewer.</summary>
    private const int BatchTokens = 16_384;

    /// <summary>Methods with few and coarse parameters, which learn at higher rates than LoRA.</summary>
    private static readonly HashSet<string> Coarse =
        ["IA3", "LN_TUNING", "VERA", "VBLORA", "FOURIERFT", "WAVEFT", "BEFT", "PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "MULTITASK_PROMPT_TUNING", "ADAPTION_PROMPT"];

    /// <summary>Picks what <paramref name="fields"/> names. Gives the settings, and a sentence for each pick.</summary>
    public static (TrainingArguments Training, IReadOnlyList<string> Reasons) Pick(
        IReadOnlyCollection<string> fields, TrainingArguments given, DataSummary data, TrainingMethod method, AdapterConfig peft, long modelParameters)
    {
        var (training, reasons) = (given, new List<string>());
        if (fields.Contains(BatchSize))
        {
            var (rows, why) = Batch(data);
            training = training with { PerDeviceTrainBatchSize = rows, GradientAccumulationSteps = 1 };
            reasons.Add($"batch_size is auto: {rows}, since {why}");
        }

        if (fields.Contains(Epochs))
        {
            var (epochs, why) = Passes(data.Used, method);
            training = training with { NumTrainEpochs = epochs };
            reasons.Add($"n_epochs is auto: {epochs}, since {why}");
        }

        if (fields.Contains(LearningRate))
        {
            var (factor, why) = Rate(method, peft, modelParameters);
            training = training with { LearningRate = new TrainingArguments().LearningRate * factor };
            reasons.Add(FormattableString.Invariant($"learning_rate_multiplier is auto: {factor}, a learning_rate of {training.LearningRate:G3}, since {why}"));
        }

        return (training, reasons);
    }

    /// <summary>A step for every 50 rows or so, so that a small file still makes many steps; a power of two, up to 16.</summary>
    private static (int Rows, string Why) Batch(DataSummary data)
    {
        var byRows = 1;
        while (byRows < 16 && byRows * 2 * 50 <= data.Used)
        {
            byRows *= 2;
        }

        var byTokens = byRows;
        while (byTokens > 1 && byTokens * data.LongestRow > BatchTokens)
        {
            byTokens /= 2;
        }

        return byTokens < byRows
            ? (byTokens, $"its longest row has {data.LongestRow} tokens and a batch shall have {BatchTokens} at most")
            : (byRows, $"the file has {data.Used} rows and an epoch shall have some 50 steps at least");
    }

    private static (int Epochs, string Why) Passes(long rows, TrainingMethod method)
    {
        var often = rows switch
        {
            < 100 => 10,
            < 500 => 5,
            < 5_000 => 3,
            < 50_000 => 2,
            _ => 1,
        };
        return method.Type switch
        {
            TrainingMethodType.Grpo or TrainingMethodType.Pretraining => (1, $"{NameOf(method)} sees its rows once"),
            TrainingMethodType.Dpo or TrainingMethodType.Cpo or TrainingMethodType.Simpo or TrainingMethodType.Orpo or TrainingMethodType.Kto or TrainingMethodType.Reward =>
                (Math.Clamp(often / 2, 1, 3), $"the file has {rows} rows, and {NameOf(method)} overfits sooner than supervised training"),
            _ => (often, $"the file has {rows} rows"),
        };
    }

    private static (double Factor, string Why) Rate(TrainingMethod method, AdapterConfig peft, long parameters)
    {
        var (factor, reasons) = (1.0, new List<string>());
        switch (method.Type)
        {
            case TrainingMethodType.Dpo or TrainingMethodType.Cpo or TrainingMethodType.Simpo or TrainingMethodType.Orpo or TrainingMethodType.Kto:
                factor *= 0.1;
                reasons.Add($"{NameOf(method)} compares likelihoods, which high rates tear down on both sides");
                break;
            case TrainingMethodType.Grpo:
                factor *= 0.05;
                reasons.Add("rewards are noisy");
                break;
            case TrainingMethodType.Pretraining:
                factor *= 0.5;
                reasons.Add("what the model knows shall stay");
                break;
        }

        if (Coarse.Contains(peft.PeftType))
        {
            factor *= 10;
            reasons.Add($"{peft.PeftType} has few parameters, which have to move far");
        }

        if (parameters < 100_000_000)
        {
            factor *= 5;
            reasons.Add($"the model is small ({parameters / 1e6:F0} M parameters)");
        }

        return (Math.Round(factor, 6), reasons.Count == 0 ? $"that suits {peft.PeftType} on models of this size" : string.Join(", and ", reasons));
    }

    private static string NameOf(TrainingMethod method) => method.Type.ToString().ToLowerInvariant();
}
