using System.Buffers;

namespace PeftServer.Engine.Tokenizers.ChatTemplates;

/// <summary>Python's <c>split</c> and its kin.</summary>
internal static class TextSplitter
{
    private static readonly SearchValues<char> LineEnds = SearchValues.Create("\n\r\v\f\x1c\x1d\x1e\u0085\u2028\u2029");

    public static ListValue Split(TextValue text, CallArguments arguments, bool fromRight, RenderState state)
    {
        var limit = arguments.Integer(1, "maxsplit", -1);
        limit = limit < 0 ? long.MaxValue : limit;
        var parts = arguments.Get(0, "sep") switch
        {
            null => fromRight ? WordsFromRight(text, limit) : Words(text, limit),
            TextValue { Length: 0 } => throw new TemplateException("empty separator"),
            TextValue separator => fromRight ? PartsFromRight(text, separator.Text, limit) : Parts(text, separator.Text, limit),
            var other => throw new TemplateException($"must be str or None, not {PythonText.TypeName(other)}"),
        };
        state.Step(parts.Count);
        return new ListValue(parts);
    }

    public static ListValue Lines(TextValue text, bool keepEnds, RenderState state)
    {
        var lines = new List<object?>();
        for (var start = 0; start < text.Length;)
        {
            var end = text.Text.AsSpan(start).IndexOfAny(LineEnds);
            if (end < 0)
            {
                lines.Add(text.Slice(start, text.Length - start));
                break;
            }

            end += start;
            var next = end + (text.Text[end] == '\r' && end + 1 < text.Length && text.Text[end + 1] == '\n' ? 2 : 1);
            lines.Add(text.Slice(start, (keepEnds ? next : end) - start));
            start = next;
        }

        state.Step(lines.Count);
        return new ListValue(lines);
    }

    public static ListValue Partition(TextValue text, string separator, bool fromRight)
    {
        var at = separator.Length == 0 ? throw new TemplateException("empty separator")
            : fromRight ? text.Text.LastIndexOf(separator, StringComparison.Ordinal)
            : text.Text.IndexOf(separator, StringComparison.Ordinal);
        if (at < 0)
        {
            return new ListValue(fromRight ? [TextValue.Empty, TextValue.Empty, text] : [text, TextValue.Empty, TextValue.Empty], isTuple: true);
        }

        var end = at + separator.Length;
        return new ListValue([text.Slice(0, at), text.Slice(at, separator.Length), text.Slice(end, text.Length - end)], isTuple: true);
    }

    private static List<object?> Parts(TextValue text, string separator, long limit)
    {
        var parts = new List<object?>();
        var start = 0;
        for (; limit > 0; limit--)
        {
            var end = text.Text.IndexOf(separator, start, StringComparison.Ordinal);
            if (end < 0)
            {
                break;
            }

            parts.Add(text.Slice(start, end - start));
            start = end + separator.Length;
        }

        parts.Add(text.Slice(start, text.Length - start));
        return parts;
    }

    private static List<object?> PartsFromRight(TextValue text, string separator, long limit)
    {
        var parts = new List<object?>();
        var end = text.Length;
        for (; limit > 0; limit--)
        {
            var at = text.Text.AsSpan(0, end).LastIndexOf(separator);
            if (at < 0)
            {
                break;
            }

            parts.Add(text.Slice(at + separator.Length, end - at - separator.Length));
            end = at;
        }

        parts.Add(text.Slice(0, end));
        parts.Reverse();
        return parts;
    }

    private static List<object?> Words(TextValue text, long limit)
    {
        var words = new List<object?>();
        var at = 0;
        while (true)
        {
            while (at < text.Length && PythonSpace.Is(text.Text[at]))
            {
                at++;
            }

            if (at == text.Length)
            {
                return words;
            }

            if (limit-- <= 0)
            {
                words.Add(text.Slice(at, text.Length - at).TrimEnd(PythonSpace.Is));
                return words;
            }

            var start = at;
            while (at < text.Length && !PythonSpace.Is(text.Text[at]))
            {
                at++;
            }

            words.Add(text.Slice(start, at - start));
        }
    }

    private static List<object?> WordsFromRight(TextValue text, long limit)
    {
        var words = new List<object?>();
        var at = text.Length;
        while (true)
        {
            while (at > 0 && PythonSpace.Is(text.Text[at - 1]))
            {
                at--;
            }

            if (at == 0)
            {
                break;
            }

            if (limit-- <= 0)
            {
                words.Add(text.Slice(0, at).TrimStart(PythonSpace.Is));
                break;
            }

            var end = at;
            while (at > 0 && !PythonSpace.Is(text.Text[at - 1]))
            {
                at--;
            }

            words.Add(text.Slice(at, end - at));
        }

        words.Reverse();
        return words;
    }
}
