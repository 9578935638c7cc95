using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.Lora;
using PeftServer.Engine.Adapters.Prompts;
using PeftServer.Engine.Data;
using PeftServer.Engine.Models;
using PeftServer.Engine.Tokenizers;
using PeftServer.Engine.Training.Objectives;
using PeftServer.Engine.Training.Optimizers;

namespace PeftServer.Engine.Training;

/// <summary>
/// What a careful engineer would take for settings that are "auto", given the data, the method and the model; each with its reason. OpenAI's three hyperparameters go by
/// their names there, the others by their paths.
/// </summary>
public static class AutoSettings
{
    public const string Epochs = "n_epochs", BatchSize = "batch_size", LearningRate = "learning_rate_multiplier";

    private const string Schedule = "training.lr_scheduler_type", Warmup = "training.warmup_ratio", Optimizer = "training.optim", Bf16 = "training.bf16",
        Packing = "training.packing", MaxLength = "training.max_length", Rank = "peft.r", Alpha = "peft.lora_alpha";

    /// <summary>Settings that can be "auto", by their paths in a request or a spec, and what <see cref="Pick"/> knows them by.</summary>
    public static IReadOnlyDictionary<string, string> Fields { get; } = new Dictionary<string, string>
    {
        ["training.num_train_epochs"] = Epochs,
        ["training.per_device_train_batch_size"] = BatchSize,
        ["training.learning_rate"] = LearningRate,
        [Schedule] = Schedule,
        [Warmup] = Warmup,
        [Optimizer] = Optimizer,
        [Bf16] = Bf16,
        [Packing] = Packing,
        [MaxLength] = MaxLength,
        [Rank] = Rank,
        [Alpha] = Alpha,
    };

    /// <summary>Trained parameters beyond which AdamW's moments are kept in 8 bits.</summary>
    private const long ManyTrained = 500_000_000;

    /// <summary>Tokens of a batch beyond which its rows are fewer.</summary>
    private const int BatchTokens = 16_384;

    /// <summary>Methods with few and coarse parameters, which learn at higher rates than LoRA.</summary>
    private static readonly HashSet<string> Coarse =
        ["IA3", "LN_TUNING", "VERA", "VBLORA", "FOURIERFT", "WAVEFT", "BEFT", "PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "MULTITASK_PROMPT_TUNING", "ADAPTION_PROMPT"];

    /// <summary>Picks what <paramref name="fields"/> names. Gives the settings, and a sentence for each pick.</summary>
    public static AutoPicks Pick(
        IReadOnlyCollection<string> fields, TrainingArguments given, DataSummary data, TrainingMethod method, AdapterConfig peft, PretrainedModel model)
    {
        var (training, reasons) = (given, new List<string>());
        if (fields.Contains(MaxLength))
        {
            training = training with { MaxLength = Math.Max(1, data.LongestRow) };
            reasons.Add(data.Cut == 0
                ? $"max_length is auto: {training.MaxLength}, the longest row, so none is cut"
                : $"max_length is auto: {training.MaxLength}, all that the model takes; {data.Cut} rows are longer and are cut");
        }

        if (fields.Contains(Packing))
        {
            var packs = method.Type is TrainingMethodType.Pretraining;
            training = training with { Packing = packs };
            reasons.Add(packs
                ? "packing is auto: true, since texts are cut into pieces, and those at their ends fill each other's rows"
                : "packing is auto: false, since rows go through the model without padding, so that packing would only change how many share a step");
        }

        if (fields.Contains(BatchSize))
        {
            var (rows, why) = method.Settings is GrpoSettings groups ? Groups(groups) : Batch(data);
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
            var (factor, why) = Rate(method, peft, model.ParameterCount);
            training = training with { LearningRate = new TrainingArguments().LearningRate * factor };
            reasons.Add(FormattableString.Invariant($"learning_rate_multiplier is auto: {factor}, a learning_rate of {training.LearningRate:G3}, since {why}"));
        }

        var steps = data.Used == 0 ? 0 : TrainingPlan.For((int)Math.Min(int.MaxValue, data.Used), training, method).TotalSteps;
        if (fields.Contains(Schedule))
        {
            training = training with { LrSchedulerType = steps >= LongRun ? LearningRateSchedule.Cosine : LearningRateSchedule.Linear };
            reasons.Add(steps >= LongRun
                ? $"lr_scheduler_type is auto: cosine, since a run of {steps} steps has time to stay high before it comes down"
                : $"lr_scheduler_type is auto: linear, since a run of {steps} steps is short");
        }

        if (fields.Contains(Warmup))
        {
            training = training with { WarmupRatio = steps >= LongRun ? 0.03 : 0.1, WarmupSteps = 0 };
            reasons.Add(FormattableString.Invariant($"warmup_ratio is auto: {training.WarmupRatio}, some {Math.Max(1, Math.Round(steps * training.WarmupRatio))} of {steps} steps, in which the optimizer's moments settle"));
        }

        if (fields.Contains(Bf16))
        {
            training = training with { Bf16 = null };
            reasons.Add("bf16 is auto: as the device that the run gets, true on a GPU, which computes bfloat16 several times as fast, and false on a CPU");
        }

        var adapter = PickAdapter(fields, data, method, peft, model, reasons);
        if (fields.Contains(Optimizer))
        {
            var trained = Trained(adapter, model);
            var many = trained > ManyTrained;
            training = training with { Optim = many ? OptimizerName.Adamw8Bit : OptimizerName.AdamwTorch };
            reasons.Add(many
                ? FormattableString.Invariant($"optim is auto: adamw_8bit, since {trained / 1e6:F0} M trained parameters would have {8 * trained / 1e9:F1} GB of moments in float32")
                : FormattableString.Invariant($"optim is auto: adamw_torch, since the moments of {trained / 1e6:G3} M trained parameters take {8 * trained / 1e6:G3} MB only"));
        }

        return new AutoPicks(training, adapter, reasons);
    }

    /// <summary>The spec of a run with what is "auto" in it picked, each told to <paramref name="say"/>.</summary>
    public static TrainingSpec Resolve(TrainingSpec spec, Action<string> say)
    {
        if (spec.Auto.Count == 0)
        {
            return spec;
        }

        using var labelled = File.OpenRead(spec.TrainingFile);
        var labels = MethodData.Labels(spec.Method, labelled, StartingAdapters.LabelsOf(spec.StartingAdapter));
        var config = PretrainedConfig.Read(spec.Model);
        var model = PretrainedModel.Plan(labels is null ? config : config.WithLabels(labels), spec.Method.Head);
        using var rows = File.OpenRead(spec.TrainingFile);
        var room = MethodData.LengthOf(model) - ((spec.Peft as PromptConfig)?.NumVirtualTokens ?? 0);
        var (_, data) = MethodData.Read(spec.Method, rows, Tokenizer.Load(spec.Model), spec.Training, MethodData.MaxLength(spec.Training, room), labels);
        var picks = Pick(spec.Auto, spec.Training, data, spec.Method, spec.Peft, model);
        foreach (var reason in picks.Reasons)
        {
            say(reason);
        }

        return spec with { Training = picks.Training, Peft = picks.Peft, Auto = [] };
    }

    private const int LongRun = 200;
    private const long SmallModel = 100_000_000;

    private static AdapterConfig PickAdapter(IReadOnlyCollection<string> fields, DataSummary data, TrainingMethod method, AdapterConfig peft, PretrainedModel model, List<string> reasons)
    {
        if (peft is not LoraConfig lora)
        {
            return peft;
        }

        if (fields.Contains(Rank))
        {
            var (rank, why) = (method.Type, data.Used) switch
            {
                (TrainingMethodType.Grpo, _) => (8, "rewards say little, which few parameters can hold"),
                (TrainingMethodType.Pretraining, _) => (64, "what is new to a model takes room"),
                _ when model.ParameterCount < SmallModel => (8, $"the model is small ({model.ParameterCount / 1e6:F0} M parameters)"),
                (_, < 1_000) => (8, $"{data.Used} rows have little to learn that more would hold"),
                (_, < 20_000) => (16, $"the file has {data.Used} rows"),
                _ => (32, $"the file has {data.Used} rows"),
            };
            lora = lora with { R = rank };
            reasons.Add($"r is auto: {rank}, since {why}");
        }

        if (fields.Contains(Alpha))
        {
            lora = lora with { LoraAlpha = 2 * lora.R };
            reasons.Add($"lora_alpha is auto: {2 * lora.R}, twice r, so that the adapter's scale and with it the learning rate that suits is the same for every r");
        }

        return lora;
    }

    private static long Trained(AdapterConfig peft, PretrainedModel model)
    {
        if (peft.NeedsCalibration || peft.Experts.Count > 0)
        {
            return 0; // neither is made without data or experts, and neither trains much
        }

        using var adapter = peft.CreateAdapter(model);
        return adapter.TrainableCount;
    }

    private static (int Completions, string Why) Groups(GrpoSettings settings) =>
        (settings.NumGenerations, $"completions are compared in groups of num_generations, {settings.NumGenerations}");

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

        if (parameters < SmallModel)
        {
            factor *= 5;
            reasons.Add($"the model is small ({parameters / 1e6:F0} M parameters)");
        }

        return (Math.Round(factor, 6), reasons.Count == 0 ? $"that suits {peft.PeftType} on models of this size" : string.Join(", and ", reasons));
    }

    private static string NameOf(TrainingMethod method) => method.Type.ToString().ToLowerInvariant();
}

/// <summary>Settings with what was "auto" in them, and why.</summary>
public sealed record AutoPicks(TrainingArguments Training, AdapterConfig Peft, IReadOnlyList<string> Reasons);
