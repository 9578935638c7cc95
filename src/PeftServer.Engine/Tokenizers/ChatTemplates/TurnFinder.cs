namespace PeftServer.Engine.Tokenizers.ChatTemplates;

/// <summary>Finds in a rendered chat where the assistant begins to speak and where its turn ends.</summary>
internal sealed class TurnFinder(ChatEncoder encoder, Conversation chat, RenderedChat rendered)
{
    private string? _endToken; // what ends the turn that is last in the text: nothing after it can be mistaken for its end

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

    /// <summary>Behind the special token that ends the turn of <paramref name="message"/>; without one, where its words end.</summary>
    public int TurnEnd(int message, int start)
    {
        var spoken = Math.Max(Spans.ContentEnd(rendered, message, start), start);
        if (encoder.NextSpecial(rendered, spoken) is not { } next)
        {
            return spoken;
        }

        if (message == chat.Messages.Count - 1 || rendered.Text[next.Start..next.End] == EndToken())
        {
            return next.End;
        }

        // The next special token may begin the next turn instead: look at the chat as it was before that.
        var before = encoder.TryRender(ChatEncoder.First(chat, message + 1), addGenerationPrompt: false);
        return before is not null && next.End > before.Text.Length && rendered.Text.StartsWith(before.Text, StringComparison.Ordinal) ? spoken : next.End;
    }

    private string EndToken()
    {
        if (_endToken is null)
        {
            var last = chat.Messages.Count - 1;
            var end = chat.RoleOf(last) == "assistant" ? encoder.NextSpecial(rendered, Spans.ContentEnd(rendered, last, rendered.Text.Length)) : null;
            _endToken = end is { } found ? rendered.Text[found.Start..found.End] : "";
        }

        return _endToken;
    }
}
