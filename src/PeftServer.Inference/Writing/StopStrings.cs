namespace PeftServer.Inference.Writing;

/// <summary>
/// Ends a text at the first of some strings. What could still become one of them is held back, so that no client sees the
/// beginning of a stop string.
/// </summary>
/// <param name="stops">The strings.</param>
/// <param name="shows">Whether the one that ended the text belongs to it.</param>
internal sealed class StopStrings(IReadOnlyList<string> stops, bool shows = false)
{
    private string _held = "";

    /// <summary>Whether one of the strings has come; nothing after it belongs to the text.</summary>
    public bool HasStopped { get; private set; }

    /// <summary>Takes in more text; gives what is safe to show.</summary>
    public string Push(string text)
    {
        if (stops.Count == 0 || HasStopped)
        {
            return HasStopped ? "" : text;
        }

        _held += text;
        var first = stops.Select(stop => (Stop: stop, At: _held.IndexOf(stop, StringComparison.Ordinal))).Where(found => found.At >= 0).ToList();
        if (first.Count > 0)
        {
            HasStopped = true;
            var (stop, at) = first.MinBy(found => found.At);
            return Take(at + (shows ? stop.Length : 0));
        }

        return Take(_held.Length - stops.Max(stop => Overlap(_held, stop)));
    }

    /// <summary>The text has ended by itself: gives what was held back.</summary>
    public string Flush() => HasStopped ? "" : Take(_held.Length);

    private string Take(int count)
    {
        var text = _held[..count];
        _held = _held[count..];
        return text;
    }

    /// <summary>Length of the longest end of <paramref name="text"/> that <paramref name="stop"/> begins with.</summary>
    private static int Overlap(string text, string stop)
    {
        for (var length = Math.Min(text.Length, stop.Length - 1); length > 0; length--)
        {
            if (text.AsSpan(text.Length - length).SequenceEqual(stop.AsSpan(0, length)))
            {
                return length;
            }
        }

        return 0;
    }
}
