using PeftServer.Engine.Tokenizers;
using PeftServer.Engine.Tokenizers.ChatTemplates;

namespace PeftServer.Engine.Data;

/// <summary>Rows to token ids and the mask of what is learnt.</summary>
internal sealed class RowEncoder(Tokenizer tokenizer, TrainingDataOptions options)
{
    private ChatEncoder? _chats;

    // Made when a row needs it: a model without a template may learn from texts.
    private ChatEncoder Chats => _chats ??= new ChatEncoder(tokenizer, options.StrictSpecialTokens, options.ChatTemplate);

    public IReadOnlyList<TokenizedChat> Encode(DatasetRow row) => row switch
    {
        ChatRow chat when options.AssistantOnlyLoss ?? true => Chats.EncodeTraining(chat.Chat, chat.Trained.Contains),
        ChatRow chat => [All(Chats.EncodePrompt(chat.Chat, addGenerationPrompt: false))],
        ChatCompletionRow chat => EncodeCompletion(chat),
        TextRow text => [EncodeText(text)],
        InstructionRow instruction => Encode(instruction.AsCompletion((options.ChatTemplate ?? tokenizer.ChatTemplate) is not null)),
        ClassRow text => [All(tokenizer.Encode(WithEnd(text.Text)))],
        PlainTextRow text => [All(tokenizer.Encode(WithEnd(text.Text)))],
        _ => throw new InvalidOperationException($"No encoding for {row.GetType().Name}."),
    };

    private IReadOnlyList<TokenizedChat> EncodeCompletion(ChatCompletionRow row)
    {
        if (options.AssistantOnlyLoss is true)
        {
            // Both masks: the assistant's turns of the prompt are context.
            var assistant = Chats.EncodeTraining(row.Chat, options.CompletionOnlyLoss && options.StrictSpecialTokens ? message => message >= row.PromptMessages : null);
            return !options.CompletionOnlyLoss || options.StrictSpecialTokens ? assistant : [Both(assistant[0], Chats.EncodeCompletion(row.Chat, row.PromptMessages))];
        }

        return [options.CompletionOnlyLoss ? Chats.EncodeCompletion(row.Chat, row.PromptMessages) : All(Chats.EncodePrompt(row.Chat, addGenerationPrompt: false))];
    }

    /// <summary>As TRL: the end token is added unless it is there, and the completion begins where prompt and whole first differ.</summary>
    private TokenizedChat EncodeText(TextRow row)
    {
        var ids = tokenizer.Encode(row.Prompt + WithEnd(row.Completion));
        return options.CompletionOnlyLoss ? new TokenizedChat(ids, ChatEncoder.AfterCommonPrefix(ids, tokenizer.Encode(row.Prompt))) : All(ids);
    }

    private string WithEnd(string text)
    {
        var end = tokenizer.EosTokenId is { } eos ? tokenizer.IdToToken(eos) ?? "" : "";
        return text.EndsWith(end, StringComparison.Ordinal) ? text : text + end;
    }

    private static TokenizedChat Both(TokenizedChat a, TokenizedChat b) => a with { Trained = [.. a.Trained.Zip(b.Trained, (x, y) => x && y)] };

    private static TokenizedChat All(int[] ids) => new(ids, [.. Enumerable.Repeat(true, ids.Length)]);
}
