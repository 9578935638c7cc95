namespace PeftServer.Engine.Tokenizers.ChatTemplates;

/// <summary>
/// Chats to token ids, for training and for answering alike: the ids in front of what is trained are exactly the ids that
/// <see cref="EncodePrompt"/> gives for the messages before it. May be used from several threads at once.
/// </summary>
public sealed class ChatEncoder
{
    private readonly Tokenizer _tokenizer;
    private readonly ChatTemplate _template;
    private readonly bool _strict;
    private readonly TimeProvider _clock;

    /// <param name="tokenizer">The model's tokenizer.</param>
    /// <param name="strictSpecialTokens">
    /// True: special tokens are matched in the template's own text only (who writes <c>&lt;|im_end|&gt;</c> in a message writes
    /// text), and the text is cut where an assistant begins to speak. False: as transformers does it.
    /// </param>
    /// <param name="template">Instead of the tokenizer's own.</param>
    /// <param name="clock">For templates that ask for the date.</param>
    /// <exception cref="TemplateException">There is no template.</exception>
    public ChatEncoder(Tokenizer tokenizer, bool strictSpecialTokens = true, ChatTemplate? template = null, TimeProvider? clock = null)
    {
        _tokenizer = tokenizer;
        _template = template ?? tokenizer.ChatTemplate
            ?? throw new TemplateException("The model has no chat template. Use prompt and completion rows, or give it a chat_template.jinja.");
        _strict = strictSpecialTokens;
        _clock = clock ?? TimeProvider.System;
    }

    /// <summary>The ids that make the model say what comes next in <paramref name="chat"/>.</summary>
    /// <exception cref="TemplateException">The template refuses the chat.</exception>
    public int[] EncodePrompt(Conversation chat, bool addGenerationPrompt = true)
    {
        chat = ToolArguments.Parsed(chat);
        var rendered = Render(chat, addGenerationPrompt);
        return Encode(rendered, rendered.Text.Length, _strict ? AnswerStarts(chat, rendered) : [], []).Ids;
    }

    /// <summary>
    /// The ids of a chat with the assistant's words as targets: each message's content and the token that ends its turn.
    /// Several results where the template rewrites earlier messages, so that no single text shows them all as they are fed.
    /// </summary>
    /// <param name="chat">The chat to learn.</param>
    /// <param name="isTrained">Which messages, by index; absent: all of the assistant's.</param>
    /// <exception cref="TemplateException">The template refuses the chat.</exception>
    public IReadOnlyList<TokenizedChat> EncodeTraining(Conversation chat, Func<int, bool>? isTrained = null)
    {
        chat = ToolArguments.Parsed(chat);
        var rendered = Render(chat, addGenerationPrompt: false);
        if (!_strict)
        {
            return [Encode(rendered, rendered.Text.Length, [], Spans.Of(rendered, Assistants(chat).Where(i => isTrained?.Invoke(i) ?? true)))];
        }

        var turns = new TurnFinder(this, chat, rendered);
        var spans = new List<TextSpan>();
        var cuts = new List<int>();
        var apart = new List<TokenizedChat>();
        foreach (var message in Assistants(chat))
        {
            var start = turns.AnswerStart(message);
            cuts.Add(start ?? Spans.ContentStart(rendered, message));
            if (!(isTrained?.Invoke(message) ?? true))
            {
                continue;
            }

            if (start is { } from && turns.TurnEnd(message, from) is { } end)
            {
                spans.AddRange(Marked(rendered, new TextSpan(from, end)));
            }
            else
            {
                apart.Add(EncodeApart(First(chat, message + 1)));
            }
        }

        return spans.Count == 0 && apart.Count > 0
            ? apart
            : [Encode(rendered, rendered.Text.Length, cuts, spans), .. apart];
    }

    /// <summary>Ids of a prompt and of all that follows it in <paramref name="chat"/>, which begins with the prompt's messages.</summary>
    /// <exception cref="TemplateException">The template refuses the chat.</exception>
    public TokenizedChat EncodeCompletion(Conversation chat, int promptMessages)
    {
        chat = ToolArguments.Parsed(chat);
        var rendered = Render(chat, addGenerationPrompt: false);
        var prompt = Render(First(chat, promptMessages), addGenerationPrompt: true);
        if (!_strict)
        {
            var all = Encode(rendered, rendered.Text.Length, [], []);
            var before = Encode(prompt, prompt.Text.Length, [], []).Ids;
            return all with { Trained = AfterCommonPrefix(all.Ids, before) };
        }

        if (!rendered.Text.StartsWith(prompt.Text, StringComparison.Ordinal))
        {
            var start = Spans.ContentStart(rendered, promptMessages);
            return Join(chat, promptMessages, prompt, rendered, new TextSpan(start, rendered.Text.Length));
        }

        return Encode(rendered, rendered.Text.Length, AnswerStarts(chat, rendered), [new TextSpan(prompt.Text.Length, rendered.Text.Length)]);
    }

    internal static Conversation First(Conversation chat, int messages) => chat with { Messages = [.. chat.Messages.Take(messages)] };

    internal static bool[] AfterCommonPrefix(int[] ids, int[] prompt)
    {
        var common = ids.AsSpan().CommonPrefixLength(prompt);
        var trained = new bool[ids.Length];
        trained.AsSpan(common).Fill(true);
        return trained;
    }

    internal RenderedChat Render(Conversation chat, bool addGenerationPrompt) =>
        _template.Render(chat, addGenerationPrompt, _tokenizer.SpecialTokenTexts, _clock);

    /// <summary>As <see cref="Render"/>; null where the template refuses the chat.</summary>
    internal RenderedChat? TryRender(Conversation chat, bool addGenerationPrompt)
    {
        try
        {
            return Render(chat, addGenerationPrompt);
        }
        catch (TemplateException)
        {
            return null; // e.g. a chat that begins with the assistant: nothing that could have been fed
        }
    }

    /// <summary>The end of the first special token that the template itself writes from <paramref name="from"/> on.</summary>
    internal (int Start, int End)? NextSpecial(RenderedChat chat, int from)
    {
        foreach (var piece in chat.Pieces)
        {
            var start = Math.Max(piece.Start, from);
            if (piece.IsTemplate && start < piece.End && _tokenizer.FindSpecial(chat.Text.AsSpan(start, piece.End - start)) is { } found)
            {
                return (start + found.Start, start + found.End);
            }
        }

        return null;
    }

    private static IEnumerable<int> Assistants(Conversation chat) =>
        Enumerable.Range(0, chat.Messages.Count).Where(i => chat.RoleOf(i) == "assistant");

    /// <summary>Where a template marks what is said, its marks, from the start of the answer to the end of the turn; else all of that.</summary>
    private static IEnumerable<TextSpan> Marked(RenderedChat chat, TextSpan turn)
    {
        if (!chat.HasGenerationBlocks)
        {
            return [turn];
        }

        var marks = Spans.Generated(chat).Where(s => s.End > turn.Start && s.Start < turn.End)
            .Select(s => new TextSpan(Math.Max(s.Start, turn.Start), Math.Min(s.End, turn.End))).ToList();
        if (marks.Count > 0)
        {
            marks[^1] = marks[^1] with { End = turn.End }; // marks that leave the end of the turn out would teach never to stop
        }

        return marks;
    }

    /// <summary>The last message of <paramref name="chat"/> in a text of its own, which is how it is fed and answered.</summary>
    private TokenizedChat EncodeApart(Conversation chat)
    {
        var message = chat.Messages.Count - 1;
        var rendered = Render(chat, addGenerationPrompt: false);
        var turns = new TurnFinder(this, chat, rendered);
        if (turns.AnswerStart(message) is { } start)
        {
            var end = turns.LastTurnEnd(start);
            return Encode(rendered, end, AnswerStarts(chat, rendered), Marked(rendered, new TextSpan(start, end)));
        }

        var prompt = Render(First(chat, message), addGenerationPrompt: true);
        var content = Spans.ContentStart(rendered, message);
        return Join(chat, message, prompt, rendered, new TextSpan(content, turns.LastTurnEnd(content)));
    }

    /// <summary>The ids of a prompt as it is fed, then those of a part of another rendering.</summary>
    private TokenizedChat Join(Conversation chat, int messages, RenderedChat prompt, RenderedChat rendered, TextSpan answer)
    {
        var before = Encode(prompt, prompt.Text.Length, AnswerStarts(First(chat, messages), prompt), []).Ids;
        var after = Encode(rendered, answer.End, [answer.Start], [answer]);
        var skip = Array.IndexOf(after.Trained, true);
        var said = skip < 0 ? [] : after.Ids[skip..];
        return new TokenizedChat([.. before, .. said], [.. new bool[before.Length], .. Enumerable.Repeat(true, said.Length)]);
    }

    private List<int> AnswerStarts(Conversation chat, RenderedChat rendered)
    {
        var turns = new TurnFinder(this, chat, rendered);
        return [.. Assistants(chat).Select(m => turns.AnswerStart(m) ?? Spans.ContentStart(rendered, m))];
    }

    private TokenizedChat Encode(RenderedChat chat, int length, IEnumerable<int> cuts, IEnumerable<TextSpan> trained)
    {
        var ids = new List<int>();
        var mask = new List<bool>();
        var spans = trained.OrderBy(s => s.Start).ToList();
        var start = 0;
        var span = 0;
        foreach (var end in cuts.Where(c => c > 0 && c < length).Order().Append(length).Distinct())
        {
            var offset = start;
            Func<int, int, bool>? mayMatch = _strict ? (from, to) => Spans.IsTemplate(chat, offset + from, offset + to) : null;
            foreach (var (token, place) in _tokenizer.EncodeAligned(chat.Text[start..end], mayMatch))
            {
                while (span < spans.Count && spans[span].End <= offset + place.Start)
                {
                    span++;
                }

                ids.Add(token.Id);
                mask.Add(span < spans.Count && offset + Math.Max(place.End, place.Start + 1) > spans[span].Start);
            }

            start = end;
        }

        return new TokenizedChat([.. ids], [.. mask]);
    }
}
