namespace PeftServer.Engine.Tokenizers.ChatTemplates;

/// <summary>Finds in a rendered chat where the assistant begins to speak and where its turn ends.</summary>
internal sealed class TurnFinder(ChatEncoder encoder, Conversation chat, RenderedChat rendered)
{
    /// <summary>
    /// Where the prompt for <paramref name="message"/> ends, which is where the model takes over; null where the prompt as it
    /// is fed is not how the chat begins. Where nothing could be fed, where the words begin.
    /// </summary>
    public int? AnswerStart(int message)
    {
        var prompt = encoder.TryRender(ChatEncoder.First(chat, message), addGenerationPrompt: true);
        return prompt is null ? Spans.ContentStart(rendered, message)
            : rendered.Text.StartsWith(prompt.Text, StringComparison.Ordinal) ? prompt.Text.Length
            : null;
    }

    /// <summary>
    /// Where the turn of <paramref name="message"/> ends, which begins at <paramref name="start"/>; null where the chat, once
    /// it has gone on, shows the turn otherwise than it was said (a template that drops earlier thoughts).
    /// </summary>
    public int? TurnEnd(int message, int start)
    {
        if (message == chat.Messages.Count - 1)
        {
            return LastTurnEnd(start);
        }

        var said = ChatEncoder.First(chat, message + 1);
        if (encoder.TryRender(said, addGenerationPrompt: false) is not { } then)
        {
            return EndOf(rendered, message, start); // a chat that the template does not let end here
        }

        var end = EndOf(then, message, start);
        return end > start && rendered.Text.AsSpan().StartsWith(then.Text.AsSpan(0, end)) ? end : null;
    }

    /// <summary>Where the turn of the last message ends.</summary>
    public int LastTurnEnd(int start) => EndOf(rendered, chat.Messages.Count - 1, start);

    /// <summary>Behind the special token that the template puts after the words of <paramref name="message"/>; without one, where they end.</summary>
    private int EndOf(RenderedChat text, int message, int start)
    {
        var spoken = Math.Max(Spans.ContentEnd(text, message, start), start);
        return encoder.NextSpecial(text, spoken)?.End ?? spoken;
    }
}
