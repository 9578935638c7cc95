using System.Text.Json;
using PeftServer.Core;
using PeftServer.Engine;
using PeftServer.Engine.Training;

namespace PeftServer.Worker.Training;

/// <summary>Some lines of an events file.</summary>
/// <param name="Events">In order; a line that is no event is a warning that quotes it.</param>
/// <param name="End">Offset behind them.</param>
/// <param name="Final">The outcome, where it is the last line of the file; it is not among the events.</param>
internal sealed record EventBatch(IReadOnlyList<TrainingEvent> Events, long End, TrainingEvent? Final);

/// <summary>The trainer's events.jsonl, read while it grows. Only whole lines count.</summary>
internal sealed class EventsFile(string path)
{
    private const int ChunkSize = 1 << 20;

    public long Length => new FileInfo(path) is { Exists: true } file ? file.Length : 0;

    /// <summary>
    /// Up to a mebibyte of events from <paramref name="offset"/>, which is the end of a line. An outcome that is followed by
    /// more lines was a former attempt's and is passed over.
    /// </summary>
    public EventBatch Read(long offset)
    {
        if (!File.Exists(path))
        {
            return new EventBatch([], offset, null);
        }

        using var file = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete);
        file.Position = Math.Min(offset, file.Length);
        var chunk = new byte[(int)Math.Min(ChunkSize, file.Length - file.Position)];
        var read = file.ReadAtLeast(chunk, chunk.Length, throwOnEndOfStream: false);
        return Parse(chunk.AsSpan(0, read), offset, isEnd: offset + read >= file.Length);
    }

    private static EventBatch Parse(ReadOnlySpan<byte> chunk, long offset, bool isEnd)
    {
        var events = new List<TrainingEvent>();
        while (chunk.Length > 0)
        {
            var end = chunk.IndexOf((byte)'\n');
            if (end < 0 && chunk.Length < ChunkSize)
            {
                break; // half a line: the rest is yet to come
            }

            var line = end < 0 ? chunk : chunk[..end];
            var next = end < 0 ? chunk.Length : end + 1;
            if (ParseLine(line) is { } parsed)
            {
                if (parsed.IsFinal && isEnd && next == chunk.Length)
                {
                    return new EventBatch(events, offset, parsed);
                }

                if (!parsed.IsFinal)
                {
                    events.Add(parsed);
                }
            }

            chunk = chunk[next..];
            offset += next;
        }

        return new EventBatch(events, offset, Final: null);
    }

    private static TrainingEvent? ParseLine(ReadOnlySpan<byte> line)
    {
        if (line.Trim(" \r\t"u8).IsEmpty)
        {
            return null;
        }

        try
        {
            return JsonSerializer.Deserialize<TrainingEvent>(line, PeftJson.Options);
        }
        catch (JsonException)
        {
            return new TrainingEvent
            {
                Number = 0,
                CreatedAt = 0,
                Type = TrainingEventType.Message,
                Level = TrainingEventLevel.Warn,
                Message = $"The trainer wrote a line that is no event: {ForeignText.CleanTail(line, 500)}",
            };
        }
    }
}
