using System.Text;
using PeftServer.Engine.Data;
using PeftServer.Engine.Tokenizers;
using PeftServer.Engine.Training;

namespace PeftServer.Cli.Data;

/// <summary>What is told about a data set on a terminal. Each gives the exit code. No tensors.</summary>
internal static class DatasetReports
{
    private const string Green = "\e[32m", Plain = "\e[0m";

    /// <summary>The form of every row.</summary>
    public static int Check(string path, DatasetFormat? format, CancellationToken stopping)
    {
        using var stream = File.OpenRead(path);
        var check = DatasetFile.Check(stream, format, stopping);
        foreach (var fault in check.Faults)
        {
            Console.WriteLine($"{Path.GetFileName(path)}:{fault.Line}: {fault.Text}");
        }

        if (check.FaultCount > check.Faults.Count)
        {
            Console.WriteLine($"and {check.FaultCount - check.Faults.Count} more");
        }

        Console.WriteLine(check.IsValid ? $"{check.Rows} rows of {check.Format}: all good" : $"{check.Rows} rows, {check.FaultCount} faults");
        return check.IsValid ? ExitCode.Done : ExitCode.Failed;
    }

    /// <summary>What a job with this model and method would make of every row.</summary>
    public static int Account(string path, string model, TrainingMethod method, TrainingArguments arguments, CancellationToken stopping)
    {
        var (_, summary, _) = Read(path, model, method, arguments, stopping);
        foreach (var note in summary.Notes)
        {
            Console.WriteLine($"{Path.GetFileName(path)}:{note.Line}: {note.Outcome.ToString().ToLowerInvariant()}: {note.Reason}");
        }

        foreach (var (reason, rows) in summary.Reasons.Where(_ => summary.Skipped + summary.Cut + summary.Split > summary.Notes.Count))
        {
            Console.WriteLine($"{rows} rows: {reason}");
        }

        Console.WriteLine($"{summary.Rows} rows: {summary.Used} used, {summary.Cut} cut, {summary.Split} split, {summary.Skipped} skipped; "
            + $"{summary.Tokens} tokens, {summary.TrainedTokens} of them trained; the longest row has {summary.LongestRow}");
        return summary.Used > 0 && summary.TrainedTokens > 0 ? ExitCode.Done : ExitCode.Failed;
    }

    /// <summary>The first rows as tokens, what trains marked.</summary>
    public static int Preview(string path, string model, TrainingMethod method, TrainingArguments arguments, int count, CancellationToken stopping)
    {
        var (rows, _, tokenizer) = Read(path, model, method, arguments, stopping);
        var (on, off) = Console.IsOutputRedirected || Environment.GetEnvironmentVariable("NO_COLOR") is { Length: > 0 } ? ("«", "»") : (Green, Plain);
        foreach (var row in rows.Take(count))
        {
            Console.WriteLine($"line {row.Line}: {row.InputIds.Length} tokens, {row.TrainedCount} of them trained");
            Console.WriteLine(Marked(row, tokenizer, on, off));
            Console.WriteLine();
        }

        return ExitCode.Done;
    }

    /// <summary>The text of a row, its runs of trained tokens between marks.</summary>
    internal static string Marked(TrainingRow row, Tokenizer tokenizer, string on, string off)
    {
        var text = new StringBuilder();
        for (int start = 0, end; start < row.InputIds.Length; start = end)
        {
            end = start + 1;
            while (end < row.InputIds.Length && row.Trained[end] == row.Trained[start])
            {
                end++;
            }

            var run = tokenizer.Decode(row.InputIds.AsSpan(start, end - start), skipSpecialTokens: false);
            text.Append(row.Trained[start] ? $"{on}{run}{off}" : run);
        }

        return text.ToString();
    }

    private static (IEnumerable<TrainingRow> Rows, DataSummary Summary, Tokenizer Tokenizer) Read(
        string path, string model, TrainingMethod method, TrainingArguments arguments, CancellationToken stopping)
    {
        var tokenizer = Tokenizer.Load(model);
        var maxLength = MethodData.MaxLength(arguments, model, method);
        using var labelled = File.OpenRead(path);
        var labels = MethodData.Labels(method, labelled, cancellationToken: stopping);
        using var stream = File.OpenRead(path);
        var (rows, summary) = MethodData.Read(method, stream, tokenizer, arguments, maxLength, labels, stopping);
        return (MethodData.Shown(rows, maxLength), summary, tokenizer);
    }
}
