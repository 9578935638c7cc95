namespace PeftServer.Engine.Tokenizers.ChatTemplates;

/// <summary>A stretch of a rendered chat, in UTF-16 units.</summary>
internal readonly record struct TextSpan(int Start, int End);

/// <summary>Stretches of a rendered chat, found by whose words they are.</summary>
internal static class Spans
{
    /// <summary>What stands in generation blocks, unless it is another message's; without them, the content of <paramref name="messages"/>.</summary>
    public static List<TextSpan> Of(RenderedChat chat, IEnumerable<int> messages)
    {
        var wanted = messages.ToHashSet();
        if (chat.HasGenerationBlocks)
        {
            return [.. Generated(chat).Where(span => !chat.Pieces.Any(p => p.Start < span.End && p.End > span.Start && p.Message is { } m && !wanted.Contains(m)))];
        }

        return Merge(chat.Pieces.Where(p => p.Message is { } m && wanted.Contains(m)));
    }

    public static List<TextSpan> Generated(RenderedChat chat) => Merge(chat.Pieces.Where(p => p.IsGenerated));

    /// <summary>Where the words of <paramref name="message"/> begin; the end of the text where it says nothing.</summary>
    public static int ContentStart(RenderedChat chat, int message)
    {
        foreach (var piece in chat.Pieces)
        {
            if (piece.Message == message)
            {
                return piece.Start;
            }
        }

        return chat.Text.Length;
    }

    /// <summary>Where the words of <paramref name="message"/> end; <paramref name="orElse"/> where it says nothing.</summary>
    public static int ContentEnd(RenderedChat chat, int message, int orElse) =>
        chat.Pieces.Where(p => p.Message == message).Select(p => p.End).DefaultIfEmpty(orElse).Max();

    /// <summary>All of it is the template's own text.</summary>
    public static bool IsTemplate(RenderedChat chat, int start, int end)
    {
        var (low, high) = (0, chat.Pieces.Count - 1);
        while (low < high)
        {
            var middle = (low + high) / 2;
            (low, high) = chat.Pieces[middle].End <= start ? (middle + 1, high) : (low, middle);
        }

        for (var i = low; i < chat.Pieces.Count && chat.Pieces[i].Start < end; i++)
        {
            if (!chat.Pieces[i].IsTemplate)
            {
                return false;
            }
        }

        return true;
    }

    private static List<TextSpan> Merge(IEnumerable<RenderedPiece> pieces)
    {
        var spans = new List<TextSpan>();
        foreach (var piece in pieces)
        {
            if (spans.Count > 0 && spans[^1].End == piece.Start)
            {
                spans[^1] = spans[^1] with { End = piece.End };
            }
            else
            {
                spans.Add(new TextSpan(piece.Start, piece.End));
            }
        }

        return spans;
    }
}
