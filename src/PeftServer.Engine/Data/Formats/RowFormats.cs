using System.Text.Json;

namespace PeftServer.Engine.Data.Formats;

/// <summary>THE list of formats. A row is of the first that recognises it.</summary>
internal static class RowFormats
{
    private static readonly RowFormat[] All =
    [
        new OpenAIPreferenceFormat(), new ShareGptFormat(), new PromptsFormat(), new MessagesFormat(), new SquadFormat(), new PreferenceFormat(), new TokenClassificationFormat(),
        new AlpacaFormat(), new EmbeddingFormat(), new JudgedFormat(), new ClassificationFormat(), new PromptCompletionFormat(), new Seq2SeqFormat(), new TextFormat(),
    ];

    private static readonly string[] OtherFields =
        ["tools", "documents", "parallel_tool_calls", "functions", "chat_template_kwargs", "task_id", "id", "margin"];

    private static readonly HashSet<string> Known = [.. All.SelectMany(format => format.Fields), .. OtherFields];

    public static bool IsKnownField(string name) => Known.Contains(name);

    /// <summary>The row, or null where it has a fault.</summary>
    public static DatasetRow? Read(JsonElement root, long line, FaultList faults, DatasetFormat? wanted)
    {
        var row = new RowScope(root, line, faults);
        if (root.ValueKind is not JsonValueKind.Object)
        {
            row.Fault("", "not_an_object", $"The row is {RowScope.Kind(root)}, not an object.", "Write one JSON object a line.");
            return null;
        }

        if (!new TextCheck(row.Fault).AreWhole(root))
        {
            return null;
        }

        var format = wanted is null ? All.FirstOrDefault(each => each.Recognises(root)) : All.Single(each => each.Format == wanted);
        if (format is null)
        {
            Unknown(row);
            return null;
        }

        var (read, task) = (format.Read(row), RowTask.Read(root, row.Fault));
        return row.IsGood && read is not null ? read with { Format = format.Format, Task = task } : null;
    }

    /// <summary>The fields that tell a format, in words.</summary>
    public static string Describe(DatasetFormat format) => format switch
    {
        DatasetFormat.Messages => "messages",
        DatasetFormat.ShareGpt => "conversations",
        DatasetFormat.PromptCompletion => "prompt and completion",
        DatasetFormat.Alpaca => "instruction and output",
        DatasetFormat.Preference => "chosen and rejected",
        DatasetFormat.OpenAIPreference => "preferred_output and non_preferred_output",
        DatasetFormat.Judged => "completion and label",
        DatasetFormat.Prompts => "a prompt without an answer",
        DatasetFormat.Classification => "text and label",
        DatasetFormat.TokenClassification => "tokens and tags",
        DatasetFormat.Squad => "question and context",
        DatasetFormat.Seq2Seq => "source and target",
        DatasetFormat.Embedding => "texts that are alike",
        _ => "text",
    };

    private static void Unknown(RowScope row)
    {
        var names = row.Root.EnumerateObject().Select(p => p.Name).ToList();
        var telling = All.Select(format => format.Fields[0]).ToHashSet();
        var near = names.Select(n => (Name: n, Known: Spelling.Nearest(n, Known))).FirstOrDefault(p => p.Known is not null && telling.Contains(p.Known));
        row.Fault(
            near.Name ?? "",
            "unknown_format",
            names.Count == 0 ? "The row is empty." : $"The row has neither messages, nor prompt, nor text; it has {string.Join(", ", names.Take(8))}.",
            near.Known is { } known ? $"Did you mean {known}?" : "Write {\"messages\": [{\"role\": …, \"content\": …}, …]} or {\"prompt\": …, \"completion\": …}.");
    }
}
