using System.Globalization;
using System.Text;
using System.Text.Json;

namespace PeftServer.Core.Jobs;

/// <summary>The metrics of a job as OpenAI's result file has them.</summary>
public static class JobResults
{
    public const string FileName = "step_metrics.csv";

    /// <summary>OpenAI's purpose of such a file.</summary>
    public const string Purpose = "fine-tune-results";

    private static readonly (string Column, string[] Metrics)[] Columns =
    [
        ("train_loss", ["train_loss"]), ("train_accuracy", ["train_mean_token_accuracy", "train_accuracy"]), ("valid_loss", ["valid_loss"]),
        ("valid_mean_token_accuracy", ["valid_mean_token_accuracy", "valid_accuracy"]),
    ];

    /// <summary>A line a step, by rising step; of a step that was trained twice, because a worker was lost, the newer one. What was not measured is empty.</summary>
    public static byte[] Csv(IEnumerable<JobEvent> events)
    {
        var steps = new SortedDictionary<int, JsonElement>();
        foreach (var row in events.Where(row => row.Type is JobEventType.Metrics).OrderBy(row => row.Number))
        {
            if (row.Data is { ValueKind: JsonValueKind.Object } data && data.TryGetProperty("step", out var step) && step.TryGetInt32(out var number))
            {
                steps[number] = data;
            }
        }

        var text = new StringBuilder($"step,{string.Join(',', Columns.Select(column => column.Column))}\n");
        foreach (var (step, data) in steps)
        {
            text.Append(CultureInfo.InvariantCulture, $"{step},{string.Join(',', Columns.Select(column => Value(data, column.Metrics)))}\n");
        }

        return Encoding.UTF8.GetBytes(text.ToString());
    }

    private static string Value(JsonElement data, string[] names) => names
        .Select(name => data.TryGetProperty(name, out var value) && value.ValueKind is JsonValueKind.Number ? value.GetDouble().ToString("R", CultureInfo.InvariantCulture) : null)
        .FirstOrDefault(value => value is not null) ?? "";
}
