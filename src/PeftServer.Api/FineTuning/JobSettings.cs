using System.ComponentModel.DataAnnotations;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.RegularExpressions;
using PeftServer.Core.Http;
using PeftServer.Engine;
using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.Lora;
using PeftServer.Engine.Training;
using PeftServer.Engine.Training.Objectives;

namespace PeftServer.Api.FineTuning;

/// <summary>
/// What a create request comes to: PEFT's and TrainingArguments' records with every default filled in, as they are
/// stored, shown and trained with. OpenAI's hyperparameters are another way to say three of their fields.
/// </summary>
internal sealed partial record JobSettings(AdapterConfig Peft, TrainingMethod Method, TrainingArguments Training, IReadOnlyList<string> Auto)
{
    private static readonly TrainingArguments Defaults = new();

    /// <summary>
    /// The settings, and every fault of the request that needs no database to see. <paramref name="starting"/>: the settings of the adapter that training goes on from.
    /// </summary>
    public static (JobSettings Settings, IReadOnlyList<ErrorDetail> Faults) Resolve(CreateJobRequest request, JsonElement document, AdapterConfig? starting = null)
    {
        var faults = new List<ErrorDetail>();
        CheckOpenAIFields(request, faults);
        CheckServersFields(document, faults);
        CheckNamedTwice(request, document, faults);

        CheckAgainstStart(document, starting, faults);
        foreach (var path in AutoFields.In(document))
        {
            faults.AddRange(AutoFields.Fault(path, request.Peft?.PeftType) is { } fault ? [new(fault, path, "invalid_value")] : []);
        }

        var peft = starting ?? request.Peft ?? new LoraConfig();
        var method = request.Method?.ToTraining() ?? new TrainingMethod();
        if (method.Reference is PreferenceReference.StartingAdapter && starting is null)
        {
            faults.Add(new(
                $"method.{request.Method!.Name}.reference is starting_adapter, but '{request.Model}' is a base model. Name a fine-tuned model, or take adapter_off.", $"method.{request.Method.Name}.reference", "invalid_value"));
        }

        if (peft.TaskType is { } task && task != method.TaskType)
        {
            faults.Add(starting is not null ? new(
                $"'{request.Model}' was trained for {Text(JsonSerializer.SerializeToElement(task, PeftJson.Options))}; a job of method.type '{Text(JsonSerializer.SerializeToElement(method.Type, PeftJson.Options))}' trains for {Text(JsonSerializer.SerializeToElement(method.TaskType, PeftJson.Options))}. Start from a model of that task, or from the base.",
                "model", "invalid_value") : new(
                $"peft.task_type is {Text(JsonSerializer.SerializeToElement(task, PeftJson.Options))}; a job of method.type '{Text(JsonSerializer.SerializeToElement(method.Type, PeftJson.Options))}' trains for {Text(JsonSerializer.SerializeToElement(method.TaskType, PeftJson.Options))}. Leave it out.",
                "peft.task_type", "invalid_value"));
        }

        var settings = new JobSettings(peft with { TaskType = method.TaskType }, method, Merge(request), AutoOf(request, document));
        faults.AddRange(Ranges("peft", settings.Peft, settings.Peft.Faults()));
        faults.AddRange(Ranges($"method.{request.Method?.Name ?? "supervised"}", method.Given, [.. method.Faults(), .. settings.Auto.Contains(AutoSettings.BatchSize) ? [] : method.Faults(Merge(request))]));
        faults.AddRange(Ranges("training", settings.Training, [.. settings.Training.Faults()]));
        if (request.ValidationFile is null && settings.Training.NeedsEvaluation is { } field)
        {
            faults.Add(new($"training.{field} needs evaluations. Add validation_file, or leave it out.", $"training.{field}", "invalid_value"));
        }

        return (settings, faults);
    }

    /// <summary>The settings in OpenAI's three words; "auto" where one is yet to be picked.</summary>
    public Hyperparameters ToHyperparameters() => new()
    {
        BatchSize = Shown(AutoSettings.BatchSize, Training.PerDeviceTrainBatchSize * Training.GradientAccumulationSteps),
        LearningRateMultiplier = Shown(AutoSettings.LearningRate, Math.Round(Training.LearningRate / Defaults.LearningRate, 6)),
        NEpochs = Shown(AutoSettings.Epochs, Math.Max(1, Math.Ceiling(Training.NumTrainEpochs))), // whole in OpenAI's API; training says it exactly
    };

    private AutoNumber Shown(string name, double value) => new(Auto.Contains(name) ? null : value);

    /// <summary>Those that the request names as "auto".</summary>
    private static List<string> AutoOf(CreateJobRequest request, JsonElement document)
    {
        bool IsAuto(Func<Hyperparameters, AutoNumber?> field) =>
            Hyper(request, field) is null && new[] { request.Method?.Hyperparameters, request.Hyperparameters }.Any(given => given is not null && field(given) is { Value: null });
        var auto = new List<string>();
        auto.AddRange(IsAuto(h => h.NEpochs) ? [AutoSettings.Epochs] : []);
        auto.AddRange(IsAuto(h => h.BatchSize) ? [AutoSettings.BatchSize] : []);
        auto.AddRange(IsAuto(h => h.LearningRateMultiplier) ? [AutoSettings.LearningRate] : []);
        return [.. auto.Union(AutoFields.In(document).Where(AutoSettings.Fields.ContainsKey).Select(path => AutoSettings.Fields[path]))];
    }

    private static TrainingArguments Merge(CreateJobRequest request)
    {
        var training = request.Training ?? Defaults;
        var epochs = Hyper(request, h => h.NEpochs);
        var batch = Hyper(request, h => h.BatchSize);
        var rate = Hyper(request, h => h.LearningRateMultiplier);
        return training with
        {
            Seed = request.Seed ?? training.Seed,
            NumTrainEpochs = epochs ?? training.NumTrainEpochs,
            PerDeviceTrainBatchSize = batch is { } rows ? (int)Math.Clamp(rows, 1, 256) : training.PerDeviceTrainBatchSize,
            LearningRate = rate is { } multiplier ? multiplier * Defaults.LearningRate : training.LearningRate,
        };
    }

    private static double? Hyper(CreateJobRequest request, Func<Hyperparameters, AutoNumber?> field) =>
        (request.Method?.Hyperparameters is { } newer ? field(newer)?.Value : null)
        ?? (request.Hyperparameters is { } older ? field(older)?.Value : null);

    private static void CheckOpenAIFields(CreateJobRequest request, List<ErrorDetail> faults)
    {
        if (request.Suffix is { } suffix && !SuffixPattern().IsMatch(suffix))
        {
            faults.Add(new(
                "suffix must be 1 to 64 letters, digits, dots, dashes or underscores: it becomes part of the model's id.",
                "suffix", "invalid_value"));
        }

        if (request.Seed < 0)
        {
            faults.Add(new($"seed is {request.Seed}; it must be from 0 to {int.MaxValue}.", "seed", "invalid_value"));
        }

        if (request.Integrations is { Count: > 0 })
        {
            faults.Add(new(
                "integrations are not supported by this server yet. Leave the field out; metrics are in the job's events.",
                "integrations", "unsupported_parameter"));
        }

        CheckMethod(request.Method, faults);
        CheckHyperparameters($"method.{request.Method?.Name}.hyperparameters", request.Method?.Hyperparameters, faults);
        CheckHyperparameters("hyperparameters", request.Hyperparameters, faults);
        CheckMetadata(request.Metadata, faults);
    }

    private static void CheckMethod(FineTuneMethod? method, List<ErrorDetail> faults)
    {
        foreach (var other in method?.Others ?? [])
        {
            faults.Add(new(
                $"method.{other} is given, but method.type is '{method!.Name}'. Remove it, or make it the type.", $"method.{other}", "unsupported_parameter"));
        }

        if (method?.Dpo?.Hyperparameters?.Beta?.Value is not null && method.Dpo.Beta != new DpoSettings().Beta)
        {
            faults.Add(new("'method.dpo.beta' and 'method.dpo.hyperparameters.beta' say the same thing. Keep one of them.", "method.dpo.beta", "named_twice"));
        }
    }

    private static void CheckHyperparameters(string path, Hyperparameters? given, List<ErrorDetail> faults)
    {
        Check("batch_size", given?.BatchSize, value => value is >= 1 and <= 256 && double.IsInteger(value), "a whole number from 1 to 256");
        Check("n_epochs", given?.NEpochs, value => value is >= 1 and <= 50 && double.IsInteger(value), "a whole number from 1 to 50");
        Check("learning_rate_multiplier", given?.LearningRateMultiplier, value => value is > 0 and <= 1e6, "above 0");

        void Check(string name, AutoNumber? number, Func<double, bool> isRight, string expected)
        {
            if (number?.Value is { } value && !isRight(value))
            {
                faults.Add(new(
                    FormattableString.Invariant($"{path}.{name} is {value}; it must be {expected}, or \"auto\"."), $"{path}.{name}", "invalid_value"));
            }
        }
    }

    private static void CheckMetadata(IReadOnlyDictionary<string, string>? metadata, List<ErrorDetail> faults)
    {
        if (metadata is { Count: > 16 })
        {
            faults.Add(new($"metadata has {metadata.Count} pairs; 16 are the most.", "metadata", "invalid_value"));
            return;
        }

        foreach (var (key, value) in metadata ?? new Dictionary<string, string>())
        {
            if (key.Length is 0 or > 64 || key.Contains('\0') || value is null or { Length: > 512 } || value.Contains('\0'))
            {
                var shown = key.Length <= 64 ? key.Replace("\0", "�", StringComparison.Ordinal) : $"{key[..64]}…";
                faults.Add(new(
                    $"metadata.{shown}: keys have 1 to 64 characters, values up to 512, neither holds U+0000.",
                    $"metadata.{shown}", "invalid_value"));
            }
        }
    }

    private static void CheckAgainstStart(JsonElement document, AdapterConfig? starting, List<ErrorDetail> faults)
    {
        if (starting is null || !document.TryGetProperty("peft", out var given) || given.ValueKind is not JsonValueKind.Object)
        {
            return;
        }

        try
        {
            StartingAdapters.Resolve(starting, JsonObject.Create(given));
        }
        catch (AdapterException e)
        {
            faults.Add(new($"peft.{e.Message}", $"peft.{e.Field}", "invalid_value"));
        }
    }

    // Fields of adapter_config.json that say what the server knows better. A null or false, as in the object of a job, says nothing.
    private static void CheckServersFields(JsonElement document, List<ErrorDetail> faults)
    {
        string[] servers = ["base_model_name_or_path", "inference_mode", "peft_version", "auto_mapping", "revision"];
        var peft = document.TryGetProperty("peft", out var given) ? given : default;
        foreach (var field in servers.Where(field => Names(document, "peft", field) && peft.GetProperty(field).ValueKind is not JsonValueKind.False))
        {
            var remedy = field is "revision" or "base_model_name_or_path" ? "The base is the request's 'model'." : "The server sets it.";
            faults.Add(new($"peft.{field} cannot be set in a request. {remedy} Remove it.", $"peft.{field}", "unsupported_parameter"));
        }
    }

    // Two names of one thing are a 400 even where they agree: the next change would be to one of them.
    private static void CheckNamedTwice(CreateJobRequest request, JsonElement document, List<ErrorDetail> faults)
    {
        var (newer, method) = (request.Method?.Hyperparameters, request.Method?.Name);
        Pair("n_epochs", newer?.NEpochs, request.Hyperparameters?.NEpochs, "num_train_epochs", "max_steps");
        Pair("batch_size", newer?.BatchSize, request.Hyperparameters?.BatchSize, "per_device_train_batch_size", "gradient_accumulation_steps");
        Pair("learning_rate_multiplier", newer?.LearningRateMultiplier, request.Hyperparameters?.LearningRateMultiplier, "learning_rate");
        if (request.Seed is not null && Names(document, "training", "seed"))
        {
            Twice("seed", "training.seed");
        }

        void Pair(string name, AutoNumber? inMethod, AutoNumber? older, params string[] inTraining)
        {
            var named = new[] { (inMethod, $"method.{method}.hyperparameters.{name}"), (older, $"hyperparameters.{name}") }
                .Where(entry => entry.Item1?.Value is not null).Select(entry => entry.Item2)
                .Concat(inTraining.Where(field => Names(document, "training", field)).Select(field => $"training.{field}").Take(1)).ToList();
            if (named.Count > 1)
            {
                Twice(named[0], named[1]);
            }
        }

        void Twice(string first, string second) =>
            faults.Add(new($"'{first}' and '{second}' say the same thing. Keep one of them.", first, "named_twice"));
    }

    private static bool Names(JsonElement document, string section, string field) =>
        document.TryGetProperty(section, out var fields) && fields.ValueKind is JsonValueKind.Object &&
        fields.TryGetProperty(field, out var value) && value.ValueKind is not JsonValueKind.Null;

    // The attributes speak of C# properties: here they speak of fields.
    private static IEnumerable<ErrorDetail> Ranges(string section, object settings, IEnumerable<ValidationResult> faults) =>
        from fault in faults
        let member = fault.MemberNames.FirstOrDefault() ?? ""
        let path = member.Length == 0 ? section : $"{section}.{JsonNamingPolicy.SnakeCaseLower.ConvertName(member)}"
        let value = settings.GetType().GetProperty(member)?.GetValue(settings)
        let message = (fault.ErrorMessage ?? "").Replace($"The field {member} must", $"{path} is {Text(value)}; it must", StringComparison.Ordinal)
            .Replace($"The {member} field does not", $"{path} is {Text(value)}, which does not", StringComparison.Ordinal)
        select new ErrorDetail(message.StartsWith(path, StringComparison.Ordinal) ? message : $"{path}: {message}", path, "invalid_value");

    private static string Text(object? value) => FormattableString.Invariant($"{value}");

    [GeneratedRegex(@"\A[A-Za-z0-9._-]{1,64}\z")]
    private static partial Regex SuffixPattern();
}
