using System.Globalization;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;

namespace PeftServer.Engine.Data.Containers;

/// <summary>
/// Rows of a CSV file (<see href="https://www.rfc-editor.org/rfc/rfc4180"/>) as JSON objects by the names in its first line. A cell that is a JSON list or
/// object becomes one (lists of messages, tools), true and false become what they say, an empty cell is absent; all else is text.
/// </summary>
internal sealed class CsvRows(Stream utf8, char delimiter, FaultList faults)
{
    private static readonly string[] Delimiters = [",", "\t", ";"];

    private long _line = 1;

    /// <summary>The delimiter of a text whose first line names fields that a format knows; null where it is no CSV.</summary>
    public static string? DelimiterOf(ReadOnlySpan<byte> text)
    {
        var end = text.IndexOf((byte)'\n');
        if (text.IsEmpty || text[0] is (byte)'{' or (byte)'[')
        {
            return null;
        }

        var header = Encoding.UTF8.GetString(end < 0 ? text : text[..end]).TrimEnd('\r');
        return Delimiters
            .Select(delimiter => (Delimiter: delimiter, Known: header.Split(delimiter).Count(name => Formats.RowFormats.IsKnownField(Name(name)))))
            .Where(entry => entry.Known > 0).OrderByDescending(entry => entry.Known).Select(entry => entry.Delimiter).FirstOrDefault();
    }

    /// <summary>The rows with the line where each begins; null for one with a fault.</summary>
    public IEnumerable<(long Line, JsonElement? Row)> Read(CancellationToken cancellationToken)
    {
        using var text = new StreamReader(utf8, new UTF8Encoding(encoderShouldEmitUTF8Identifier: true, throwOnInvalidBytes: true));
        if (Record(text) is not { } header)
        {
            yield break;
        }

        var names = header.Select(Name).ToList();
        var line = _line;
        while (Record(text) is { } cells)
        {
            cancellationToken.ThrowIfCancellationRequested();
            if (cells is not [{ Length: 0 }])
            {
                yield return (line, RowOf(names, cells, line));
            }

            line = _line;
        }
    }

    private static string Name(string cell) => cell.Trim().Trim('"').ToLowerInvariant();

    private JsonElement? RowOf(List<string> names, List<string> cells, long line)
    {
        if (cells.Count != names.Count)
        {
            faults.Add(line, "", "csv_columns", $"The row has {cells.Count} cells, the first line names {names.Count}.", "Put texts that hold the delimiter or a line break into double quotes.");
            return null;
        }

        var row = new JsonObject();
        foreach (var (name, cell) in names.Zip(cells))
        {
            if (cell.Length > 0)
            {
                row[name] = Value(cell);
            }
        }

        return JsonSerializer.SerializeToElement(row);
    }

    private static JsonNode Value(string cell)
    {
        if (bool.TryParse(cell, out var flag))
        {
            return flag;
        }

        if (cell[0] is '[' or '{')
        {
            try
            {
                return JsonNode.Parse(cell)!;
            }
            catch (JsonException)
            {
                // A text that begins with a bracket.
            }
        }

        return cell;
    }

    /// <summary>The cells of the next record; null at the end.</summary>
    private List<string>? Record(StreamReader text)
    {
        if (text.Peek() < 0)
        {
            return null;
        }

        var (cells, cell, inQuotes, start) = (new List<string>(), new StringBuilder(), false, _line);
        for (var next = text.Read(); next >= 0; next = text.Read())
        {
            _line += next == '\n' ? 1 : 0;
            if (inQuotes)
            {
                if (next != '"')
                {
                    cell.Append((char)next);
                }
                else if (text.Peek() == '"')
                {
                    cell.Append((char)text.Read());
                }
                else
                {
                    inQuotes = false;
                }
            }
            else if (next == '"' && cell.Length == 0)
            {
                inQuotes = true;
            }
            else if (next == delimiter)
            {
                cells.Add(cell.ToString());
                cell.Clear();
            }
            else if (next == '\n')
            {
                break;
            }
            else if (next != '\r' || text.Peek() != '\n')
            {
                cell.Append((char)next);
            }

            if (cell.Length > DatasetFile.MaxLineBytes)
            {
                throw new InvalidDataException(string.Create(CultureInfo.InvariantCulture, $"A cell that begins in the row of line {start} does not end. A closing double quote is missing."));
            }
        }

        cells.Add(cell.ToString());
        return cells;
    }
}
