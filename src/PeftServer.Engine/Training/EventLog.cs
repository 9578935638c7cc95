using System.Text;
using System.Text.Json;

namespace PeftServer.Engine.Training;

/// <summary>
/// Appends to <c>events.jsonl</c> of a run folder. Each line is written whole and at once; a line cut short by a crash is dropped
/// when the log is opened again, and the numbers go on.
/// </summary>
public sealed class EventLog : IDisposable
{
    private readonly FileStream _file;
    private readonly TimeProvider _clock;
    private readonly Action<TrainingEvent>? _copy;
    private readonly Lock _gate = new();
    private int _number;

    /// <param name="folder">The run folder.</param>
    /// <param name="clock">Time for the events.</param>
    /// <param name="copy">Is given every event too, for people who watch.</param>
    public EventLog(string folder, TimeProvider clock, Action<TrainingEvent>? copy = null)
    {
        (_clock, _copy) = (clock, copy);
        _file = new FileStream(Path.Combine(folder, TrainingEvent.FileName), FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.Read);
        _number = Repair();
    }

    public void Message(string message, TrainingEventLevel level = TrainingEventLevel.Info) =>
        Write(TrainingEventType.Message, message, level);

    /// <summary>
    /// Writes an event. Numbers in <paramref name="data"/> that are not finite are left out and named in the message: JSON has none.
    /// </summary>
    public void Write(TrainingEventType type, string message, TrainingEventLevel level = TrainingEventLevel.Info, params IEnumerable<(string Name, object Value)> data)
    {
        var fields = new Dictionary<string, JsonElement>();
        foreach (var (name, value) in data)
        {
            if (value is double number && !double.IsFinite(number))
            {
                message += $" ({name} is {number})";
                continue;
            }

            fields[name] = JsonSerializer.SerializeToElement(value, PeftJson.Options);
        }

        lock (_gate)
        {
            var written = new TrainingEvent
            {
                Number = ++_number,
                CreatedAt = _clock.GetUtcNow().ToUnixTimeMilliseconds(),
                Type = type,
                Level = level,
                Message = message,
                Data = fields.Count > 0 ? fields : null,
            };
            _file.Write(Encoding.UTF8.GetBytes(JsonSerializer.Serialize(written, PeftJson.Options) + "\n"));
            _file.Flush(flushToDisk: written.IsFinal);
            _copy?.Invoke(written);
        }
    }

    public void Dispose() => _file.Dispose();

    /// <summary>Cuts what follows the last whole line; gives that line's number, 0 for an empty log.</summary>
    private int Repair()
    {
        using var reader = new StreamReader(_file, Encoding.UTF8, leaveOpen: true);
        var text = reader.ReadToEnd();
        var end = text.LastIndexOf('\n') + 1;
        _file.SetLength(Encoding.UTF8.GetByteCount(text.AsSpan(0, end)));
        _file.Seek(0, SeekOrigin.End);
        return end == 0 ? 0 : JsonSerializer.Deserialize<TrainingEvent>(text[..end].TrimEnd('\n').Split('\n')[^1], PeftJson.Options)!.Number;
    }
}
