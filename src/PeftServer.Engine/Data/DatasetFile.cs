using System.Text;
using System.Text.Json;
using System.Text.Unicode;
using PeftServer.Engine.Data.Containers;
using PeftServer.Engine.Data.Formats;

namespace PeftServer.Engine.Data;

/// <summary>
/// Training files in the formats of <see cref="DatasetFormat"/>: JSON objects (one a line, over several lines, or in an array), CSV or Parquet; plain, in gzip or
/// in Zstandard; UTF-8 or UTF-16.
/// </summary>
public static class DatasetFile
{
    /// <summary>Longest row, in bytes. One beyond it is longer than any context that could learn it.</summary>
    public const int MaxLineBytes = 32 * 1024 * 1024;

    /// <summary>How many faults are told one by one.</summary>
    public const int MaxFaults = 100;

    /// <summary>Checks the format of every row, whatever the model, in bounded memory.</summary>
    /// <param name="stream">The file.</param>
    /// <param name="format">The format that its rows shall have; absent: each row's is known by its fields, and all rows must be of one.</param>
    /// <param name="cancellationToken">Ends the reading.</param>
    public static DatasetCheck Check(Stream stream, DatasetFormat? format, CancellationToken cancellationToken = default)
    {
        var faults = new FaultList(MaxFaults);
        var rows = 0L;
        foreach (var (line, row) in ReadRows(stream, faults, format, cancellationToken))
        {
            rows++;
            if (row is null)
            {
                continue;
            }

            format ??= row.Format;
            if (row.Format != format)
            {
                faults.Add(line, "", "mixed_formats", $"This row has {RowFormats.Describe(row.Format)}, earlier ones {RowFormats.Describe(format.Value)}.", "Keep rows of one format in a file.");
            }
        }

        if (rows == 0 && faults.Count == 0)
        {
            faults.Add(1, "", "empty_file", "The file has no rows.", "Write one JSON object a line.");
        }

        return new DatasetCheck { Rows = rows, Format = format, FaultCount = faults.Count, Faults = faults.First };
    }

    /// <inheritdoc cref="Check(Stream, DatasetFormat?, CancellationToken)"/>
    public static DatasetCheck Check(Stream stream, CancellationToken cancellationToken = default) => Check(stream, format: null, cancellationToken);

    /// <inheritdoc cref="Check(Stream, DatasetFormat?, CancellationToken)"/>
    public static DatasetCheck Check(string path, CancellationToken cancellationToken = default)
    {
        using var stream = File.OpenRead(path);
        return Check(stream, format: null, cancellationToken);
    }

    /// <summary>The rows in order; null for a row that has a fault.</summary>
    internal static IEnumerable<(long Line, DatasetRow? Row)> ReadRows(
        Stream stream, FaultList faults, DatasetFormat? format = null, CancellationToken cancellationToken = default)
    {
        foreach (var (line, value) in ReadValues(stream, faults, cancellationToken))
        {
            yield return (line, value is { } row ? RowFormats.Read(row, line, faults, format) : null);
        }
    }

    /// <summary>The rows as JSON, whatever their format; null for one that has a fault. What ends the file early is a fault of its own.</summary>
    internal static IEnumerable<(long Line, JsonElement? Value)> ReadValues(Stream stream, FaultList faults, CancellationToken cancellationToken)
    {
        var last = 0L;
        using var rows = Open(stream, faults, cancellationToken).GetEnumerator();
        while (true)
        {
            try
            {
                if (!rows.MoveNext())
                {
                    yield break;
                }

                last = rows.Current.Line;
            }
            catch (Exception e) when (e is InvalidDataException or IOException or ZstdSharp.ZstdException or DecoderFallbackException or NotSupportedException or ArgumentException or FormatException)
            {
                faults.Add(last + 1, "", "unreadable", $"The file cannot be read on from here: {e.Message}", "Check that it is whole, and write it again.");
                break;
            }

            yield return rows.Current;
        }

        yield return (last + 1, null);
    }

    private static IEnumerable<(long Line, JsonElement? Value)> Open(Stream stream, FaultList faults, CancellationToken cancellationToken)
    {
        using var content = DatasetContent.Open(stream);
        var rows = content.Container switch
        {
            DatasetContainer.Parquet => ParquetRows.Read(content.Utf8, cancellationToken),
            DatasetContainer.Csv => new CsvRows(content.Utf8, content.CsvDelimiter[0], faults).Read(cancellationToken),
            DatasetContainer.JsonValues => Parsed(new JsonValueReader(content.Utf8, MaxLineBytes).ReadValues(cancellationToken), faults),
            _ => Parsed(new JsonLineReader(content.Utf8, MaxLineBytes).ReadLines(cancellationToken), faults),
        };
        foreach (var row in rows)
        {
            yield return row;
        }
    }

    private static IEnumerable<(long Line, JsonElement? Value)> Parsed(IEnumerable<JsonLine> lines, FaultList faults)
    {
        foreach (var line in lines)
        {
            if (line.IsTooLong || !line.Bytes.Span.Trim(" \t\r"u8).IsEmpty)
            {
                yield return (line.Number, Parse(line, faults)); // a blank line is no row
            }
        }
    }

    private static JsonElement? Parse(JsonLine line, FaultList faults)
    {
        if (line.IsTooLong)
        {
            faults.Add(line.Number, "", "line_too_long", $"The row is longer than {MaxLineBytes} bytes.", "Split the row, or check that every row ends in a newline.");
            return null;
        }

        var bytes = line.Bytes.Span.Trim(" \t\r"u8);
        if (!Utf8.IsValid(bytes))
        {
            faults.Add(line.Number, "", "not_utf8", "The row is not valid UTF-8.", "Save the file as UTF-8 (it may be Latin-1 or Windows-1252).");
            return null;
        }

        try
        {
            using var document = JsonDocument.Parse(bytes.ToArray());
            return document.RootElement.Clone();
        }
        catch (JsonException e)
        {
            faults.Add(line.Number, "", "invalid_json", $"Not JSON, at byte {e.BytePositionInLine + 1}: {Reason(e)}", "Correct the row; it must be one JSON object.");
            return null;
        }
    }

    private static string Reason(JsonException e)
    {
        var end = e.Message.IndexOf(" LineNumber:", StringComparison.Ordinal);
        return end < 0 ? e.Message : e.Message[..end];
    }
}

/// <summary>Counts faults and keeps the first ones.</summary>
internal sealed class FaultList(int keep)
{
    private readonly List<DatasetFault> _first = [];
    private DatasetFault? _next;

    public long Count { get; private set; }

    public IReadOnlyList<DatasetFault> First => _first;

    /// <summary>The first one since this was asked last.</summary>
    public DatasetFault? TakeNext()
    {
        var next = _next;
        _next = null;
        return next;
    }

    public void Add(long line, string path, string rule, string message, string fix)
    {
        var fault = new DatasetFault(line, path, rule, message, fix);
        _next ??= fault;
        if (Count++ < keep)
        {
            _first.Add(fault);
        }
    }
}
