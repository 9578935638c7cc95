using System.Text.Json;
using System.Text.Unicode;

namespace PeftServer.Engine.Data;

/// <summary>Training files: one JSON object a line, in the formats of <see cref="DatasetFormat"/>.</summary>
public static class DatasetFile
{
    /// <summary>Longest line, in bytes. A row beyond it is longer than any context that could learn it.</summary>
    public const int MaxLineBytes = 32 * 1024 * 1024;

    /// <summary>How many faults are told one by one.</summary>
    public const int MaxFaults = 100;

    /// <summary>Checks the format of every row, whatever the model, in bounded memory.</summary>
    public static DatasetCheck Check(Stream stream, CancellationToken cancellationToken = default)
    {
        var faults = new FaultList(MaxFaults);
        DatasetFormat? format = null;
        var rows = 0L;
        foreach (var (line, row) in ReadRows(stream, faults, cancellationToken))
        {
            rows++;
            if (row is null)
            {
                continue;
            }

            format ??= row.Format;
            if (row.Format != format)
            {
                faults.Add(line, "", "mixed_formats", $"This row has {Describe(row.Format)}, earlier ones {Describe(format.Value)}.", "Keep rows of one format in a file.");
            }
        }

        if (rows == 0 && faults.Count == 0)
        {
            faults.Add(1, "", "empty_file", "The file has no rows.", "Write one JSON object a line.");
        }

        return new DatasetCheck { Rows = rows, Format = format, FaultCount = faults.Count, Faults = faults.First };
    }

    /// <inheritdoc cref="Check(Stream, CancellationToken)"/>
    public static DatasetCheck Check(string path, CancellationToken cancellationToken = default)
    {
        using var stream = File.OpenRead(path);
        return Check(stream, cancellationToken);
    }

    /// <summary>The rows in order; null for a row that has a fault.</summary>
    internal static IEnumerable<(long Line, DatasetRow? Row)> ReadRows(Stream stream, FaultList faults, CancellationToken cancellationToken)
    {
        var reader = new JsonLineReader(stream, MaxLineBytes);
        var isFirst = true;
        foreach (var line in reader.ReadLines(cancellationToken))
        {
            if (reader.IsUtf16)
            {
                faults.Add(1, "", "not_utf8", "The file is UTF-16.", "Save it as UTF-8: iconv -f UTF-16 -t UTF-8.");
                yield break;
            }

            if (!line.IsTooLong && line.Bytes.Span.Trim(" \t\r"u8).IsEmpty)
            {
                continue; // a blank line is no row
            }

            var row = ReadRow(line, faults, isFirst, out var endsFile);
            yield return (line.Number, row);
            isFirst = false;
            if (endsFile)
            {
                yield break;
            }
        }
    }

    private static DatasetRow? ReadRow(JsonLine line, FaultList faults, bool isFirst, out bool endsFile)
    {
        endsFile = false;
        if (line.IsTooLong)
        {
            faults.Add(line.Number, "", "line_too_long", $"The line is longer than {MaxLineBytes} bytes.", "Split the row, or check that every row ends in a newline.");
            return null;
        }

        var bytes = line.Bytes.Span.Trim(" \t\r"u8);
        if (!Utf8.IsValid(bytes))
        {
            faults.Add(line.Number, "", "not_utf8", "The line is not valid UTF-8.", "Save the file as UTF-8 (it may be Latin-1 or Windows-1252).");
            return null;
        }

        JsonElement root;
        try
        {
            using var document = JsonDocument.Parse(bytes.ToArray());
            root = document.RootElement.Clone();
        }
        catch (JsonException e)
        {
            if (isFirst && bytes[0] == '[')
            {
                faults.Add(line.Number, "", "json_array", "The file is one JSON array over several lines.", "Write one object a line: jq -c '.[]' file.json > file.jsonl.");
                endsFile = true;
            }
            else if (isFirst && bytes[0] == '{' && e.BytePositionInLine >= bytes.Length)
            {
                faults.Add(line.Number, "", "json_over_lines", "The object goes on over several lines.", "Write one object a line: jq -c . file.json > file.jsonl.");
                endsFile = true;
            }
            else
            {
                faults.Add(line.Number, "", "invalid_json", $"Not JSON, at byte {e.BytePositionInLine + 1}: {Reason(e)}", "Correct the line; every line must be one JSON object.");
            }

            return null;
        }

        if (isFirst && root.ValueKind is JsonValueKind.Array)
        {
            faults.Add(line.Number, "", "json_array", "The line is a JSON array.", "Write one object a line: jq -c '.[]' file.json > file.jsonl.");
            return null;
        }

        return new RowReader(line.Number, faults).Read(root);
    }

    private static string Reason(JsonException e)
    {
        var end = e.Message.IndexOf(" LineNumber:", StringComparison.Ordinal);
        return end < 0 ? e.Message : e.Message[..end];
    }

    private static string Describe(DatasetFormat format) => format switch
    {
        DatasetFormat.Messages => "messages",
        DatasetFormat.PromptCompletion => "prompt and completion",
        DatasetFormat.Preference => "chosen and rejected",
        DatasetFormat.Judged => "completion and label",
        _ => "text",
    };
}

/// <summary>Counts faults and keeps the first ones.</summary>
internal sealed class FaultList(int keep)
{
    private readonly List<DatasetFault> _first = [];

    public long Count { get; private set; }

    public IReadOnlyList<DatasetFault> First => _first;

    public void Add(long line, string path, string rule, string message, string fix)
    {
        if (Count++ < keep)
        {
            _first.Add(new DatasetFault(line, path, rule, message, fix));
        }
    }
}
