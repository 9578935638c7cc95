using System.Globalization;
using System.Text.Json.Nodes;
using PeftServer.Cli.Up;
using PeftServer.Engine.Hub;

namespace PeftServer.Cli.Demo;

/// <summary>Which model the demo teaches what. The sample model learns the sample mails; any other model and chat set will do.</summary>
internal sealed record DemoSubject
{
    public const string SampleModel = "tiny-llama";

    /// <summary>Folder, GGUF file or id on the Hub, as it was given; null: the sample model.</summary>
    public string? Model { get; init; }

    /// <summary>Folder that holds train.jsonl and validation.jsonl.</summary>
    public required string Dataset { get; init; }

    /// <summary>What a validation row is called.</summary>
    public required string Rows { get; init; }

    /// <summary>So many validation rows are evaluated and asked, the first ones; null: all.</summary>
    public int? Questions { get; init; }

    /// <summary>The longest answer, in tokens.</summary>
    public required int MaxTokens { get; init; }

    /// <summary>The job's <c>training</c>.</summary>
    public required JsonObject Training { get; init; }

    public string TrainingFile => Path.Combine(Dataset, "train.jsonl");

    public string ValidationFile => Path.Combine(Dataset, "validation.jsonl");

    /// <summary>What the fine-tuned model's name ends with.</summary>
    public string Suffix => new([.. Path.GetFileName(Path.TrimEndingDirectorySeparator(Dataset)).ToLowerInvariant().Where(c => char.IsAsciiLetterOrDigit(c) || c is '-' or '_').Take(18)]);

    /// <summary>
    /// The sample's settings, or those that suit other models where either is given. <paramref name="training"/> wins over both. Throws
    /// <see cref="CommandException"/> naming the option.
    /// </summary>
    public static DemoSubject Of(string? model, string? dataset, int? questions, IReadOnlyList<string> training)
    {
        var isSample = model is null && dataset is null;
        var subject = new DemoSubject
        {
            Model = model,
            Dataset = dataset ?? Path.Combine(Samples.Folder, "datasets", "spam"),
            Rows = dataset is null ? "mails" : "rows",
            Questions = questions ?? (dataset is null ? null : 100),
            MaxTokens = dataset is null ? 4 : 32,
            Training = isSample
                ? new JsonObject { ["num_train_epochs"] = 2, ["per_device_train_batch_size"] = 16, ["learning_rate"] = 2e-3 }
                : new JsonObject { ["num_train_epochs"] = 1, ["per_device_train_batch_size"] = 8, ["learning_rate"] = 2e-4 },
        };
        foreach (var setting in training)
        {
            if (setting.Split('=', 2) is not [{ Length: > 0 } name, { Length: > 0 } value])
            {
                throw new CommandException($"--training {setting}: say NAME=VALUE, such as learning_rate=1e-3.", ExitCode.Usage);
            }

            subject.Training[name] = Value(value);
        }

        foreach (var file in new[] { subject.TrainingFile, subject.ValidationFile })
        {
            if (!File.Exists(file))
            {
                throw new CommandException($"--dataset {subject.Dataset}: there is no {Path.GetFileName(file)} in it. It needs train.jsonl and validation.jsonl, a chat a line.", ExitCode.Usage);
            }
        }

        return subject;
    }

    /// <summary>
    /// Brings the model into <paramref name="root"/>, a server's Models:Root, by a link; one of the Hub's is fetched first. Gives its name
    /// there. Throws <see cref="CommandException"/>.
    /// </summary>
    public async Task<string> BringModelAsync(DirectoryInfo root, StatusLines status, CancellationToken cancellationToken)
    {
        if (Model is null)
        {
            return SampleModel;
        }

        if (Directory.Exists(Model) || File.Exists(Model))
        {
            var path = Path.TrimEndingDirectorySeparator(Path.GetFullPath(Model));
            return Path.GetFileName(ModelLink.Create(path, root, Path.GetFileName(path)));
        }

        try
        {
            if (!HubModelId.TryParse(Model, out var id))
            {
                throw new CommandException($"--model {Model}: this is neither a folder nor the id of a model on the Hub (owner/name).", ExitCode.Usage);
            }

            status.Line("model", $"fetching {Model}");
            using var hub = new HubClient(HubOptions.FromEnvironment());
            return Path.GetFileName(ModelLink.Create(await hub.DownloadAsync(id, cancellationToken: cancellationToken), root, id.Name));
        }
        catch (HubException e)
        {
            throw new CommandException(e.Message, ExitCode.Failed, e);
        }
    }

    /// <summary>Numbers and truth values as such, anything else as text.</summary>
    private static JsonNode Value(string text) =>
        bool.TryParse(text, out var flag) ? JsonValue.Create(flag)
        : long.TryParse(text, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out var whole) ? JsonValue.Create(whole)
        : double.TryParse(text, NumberStyles.Float, CultureInfo.InvariantCulture, out var number) ? JsonValue.Create(number)
        : JsonValue.Create(text);
}
