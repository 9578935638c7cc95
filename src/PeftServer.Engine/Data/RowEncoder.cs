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
        ChatRow chat when options.AssistantOnlyLoss => Chats.EncodeTraining(chat.Chat, chat.Trained.Contains),
        ChatRow chat => [All(Chats.EncodePrompt(chat.Chat, addGenerationPrompt: false))],
        ChatCompletionRow chat when options.CompletionOnlyLoss => [Chats.EncodeCompletion(chat.Chat, chat.PromptMessages)],
        ChatCompletionRow chat => [All(Chats.EncodePrompt(chat.Chat, addGenerationPrompt: false))],
        TextRow text => [EncodeText(text)],
        _ => throw new InvalidOperationException($"No encoding for {row.GetType().Name}."),
    };

    /// <summary>As TRL: the end token is added unless it is there, and the completion begins where prompt and whole first differ.</summary>
    private TokenizedChat EncodeText(TextRow row)
    {
        var end = tokenizer.EosTokenId is { } eos ? tokenizer.IdToToken(eos) ?? "" : "";
        var completion = row.Completion.EndsWith(end, StringComparison.Ordinal) ? row.Completion : row.Completion + end;
        var ids = tokenizer.Encode(row.Prompt + completion);
        return options.CompletionOnlyLoss ? new TokenizedChat(ids, ChatEncoder.AfterCommonPrefix(ids, tokenizer.Encode(row.Prompt))) : All(ids);
    }

    private static TokenizedChat All(int[] ids) => new(ids, [.. Enumerable.Repeat(true, ids.Length)]);
}
