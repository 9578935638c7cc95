namespace PeftServer.Engine.Tokenizers.PreTokenizers;

/// <summary>SentencePiece's: spaces become a visible character, which is put in front as well, and begins each word.</summary>
internal sealed class MetaspacePreTokenizer(char replacement, PrependScheme scheme, bool split) : PreTokenizer
{
    public override void Split(AlignedText text, List<AlignedText> words)
    {
        text = Replaced(text);
        if (text.IsEmpty)
        {
            return;
        }

        var prepends = scheme is PrependScheme.Always || (scheme is PrependScheme.First && text.Origin == 0);
        if (prepends && text.Span[0] != replacement)
        {
            var edit = text.Edit();
            edit.InsertBefore([replacement]);
            text = edit.Finish();
        }

        if (!split)
        {
            words.Add(text);
            return;
        }

        var start = 0;
        for (var at = 1; at < text.Length; at++)
        {
            if (text.Span[at] == replacement)
            {
                words.Add(text.Slice(start, at - start));
                start = at;
            }
        }

        words.Add(text.Slice(start, text.Length - start));
    }

    private AlignedText Replaced(AlignedText text)
    {
        if (replacement == ' ' || !text.Span.Contains(' '))
        {
            return text;
        }

        var edit = text.Edit();
        while (!edit.AtEnd)
        {
            if (text.Span[edit.Position] == ' ')
            {
                edit.Replace([replacement], 1);
            }
            else
            {
                edit.Keep(1);
            }
        }

        return edit.Finish();
    }
}

/// <summary>When the replacement is put in front of a text.</summary>
internal enum PrependScheme
{
    Always,

    /// <summary>Only in front of the text that begins the input, not behind an added token.</summary>
    First,
    Never,
}
