using System.CommandLine;
using System.Text.Json;
using PeftServer.Cli.Data;
using PeftServer.Engine;
using PeftServer.Engine.Data;
using PeftServer.Engine.Training;

namespace PeftServer.Cli.Commands;

/// <summary><c>peftserver data</c></summary>
internal static class DataCommand
{
    private const string CheckLesson = """
        Examples:
          peftserver data check rows.jsonl
          peftserver data check rows.parquet --format alpaca
          peftserver data check pairs.jsonl.gz --method dpo --model models/tiny-llama --max-length 512

        Without --model the form of every row is checked, as an upload does it: line, path, what is wrong, what to do. With it the
        rows are read as a job would read them, and every row is accounted for: used, cut, split, skipped. JSON Lines, JSON arrays,
        CSV and Parquet, plain, gzip or zstd; the formats are told apart by their fields, or named by --format.
        """;

    private const string PreviewLesson = """
        Examples:
          peftserver data preview rows.jsonl --model models/tiny-llama
          peftserver data preview pairs.jsonl --model models/tiny-llama --method dpo --rows 5 --max-length 256

        Shows rows as the model sees them. What trains is green; where there are no colours, it stands between « and ».
        """;

    public static Command Create() => new("data", "Look at a data set before it trains.") { CreateCheck(), CreatePreview() };

    private static DescribedCommand CreateCheck()
    {
        var options = new DataOptions();
        var format = NamedOption<DatasetFormat>("--format", "Format of the rows. Default: known by their fields.");
        var command = new DescribedCommand("check", "Check a data set, row by row.", CheckLesson) { options.File, format, options.Method, options.Model, options.MaxLength };
        command.SetAction((result, stopping) => Task.FromResult(Run(options, result, (file, method, arguments) => result.GetValue(options.Model) is { } model
            ? DatasetReports.Account(file, model.FullName, method, arguments with { DatasetFormat = Named<DatasetFormat>(result.GetValue(format)) }, stopping)
            : DatasetReports.Check(file, Named<DatasetFormat>(result.GetValue(format)) ?? method.Format, stopping))));
        return command;
    }

    private static DescribedCommand CreatePreview()
    {
        var options = new DataOptions { Model = { Required = true } };
        var rows = new Option<int>("--rows") { Description = "Rows to show.", HelpName = "N", DefaultValueFactory = _ => 3 };
        var command = new DescribedCommand("preview", "Show rows as tokens, and which of them train.", PreviewLesson) { options.File, options.Model, options.Method, rows, options.MaxLength };
        command.SetAction((result, stopping) => Task.FromResult(Run(options, result, (file, method, arguments) =>
            DatasetReports.Preview(file, result.GetRequiredValue(options.Model)!.FullName, method, arguments, result.GetValue(rows), stopping))));
        return command;
    }

    private static int Run(DataOptions options, ParseResult result, Func<string, TrainingMethod, TrainingArguments, int> work)
    {
        var file = result.GetRequiredValue(options.File);
        if (!file.Exists)
        {
            throw new CommandException($"{file} is not there.", ExitCode.Usage);
        }

        var method = new TrainingMethod { Type = Named<TrainingMethodType>(result.GetValue(options.Method)) ?? TrainingMethodType.Supervised };
        try
        {
            return work(file.FullName, method, new TrainingArguments { MaxLength = result.GetValue(options.MaxLength) });
        }
        catch (Exception e) when (e is Engine.Weights.CheckpointException or Engine.Tokenizers.TokenizerException or Engine.Tokenizers.ChatTemplates.TemplateException)
        {
            throw new CommandException($"--model: {e.Message}", ExitCode.Usage, e);
        }
    }

    /// <summary>An option whose values are the names that <typeparamref name="T"/> has in JSON.</summary>
    private static Option<string?> NamedOption<T>(string name, string description)
        where T : struct, Enum
    {
        var option = new Option<string?>(name) { Description = description, HelpName = "NAME" };
        option.AcceptOnlyFromAmong([.. Enum.GetValues<T>().Select(value => JsonSerializer.SerializeToElement(value, PeftJson.Options).GetString()!)]);
        return option;
    }

    private static T? Named<T>(string? name)
        where T : struct, Enum => name is null ? null : JsonSerializer.Deserialize<T>(JsonSerializer.Serialize(name), PeftJson.Options);

    /// <summary>What both commands ask for.</summary>
    private sealed class DataOptions
    {
        public Argument<FileInfo> File { get; } = new("file") { Description = "The data set.", HelpName = "FILE" };

        public Option<DirectoryInfo?> Model { get; } = new("--model") { Description = "Folder of the base model.", HelpName = "DIR" };

        public Option<string?> Method { get; } = NamedOption<TrainingMethodType>("--method", "What is to be learnt. Default: supervised.");

        public Option<int?> MaxLength { get; } = new("--max-length") { Description = "Tokens that a row may have. Default: what the model takes.", HelpName = "N" };
    }
}
