using System.Text.Json;
using PeftServer.Engine.Tokenizers;
using PeftServer.Engine.Tokenizers.ChatTemplates;

namespace PeftServer.Engine.Data;

/// <summary>What the model shall answer, as tokens, and the row that graders look at.</summary>
public sealed record Prompt(int[] Ids, JsonElement Item, long Line);

/// <summary>A file of prompts as tokens, with an account of every row.</summary>
public sealed record PromptData(IReadOnlyList<Prompt> Rows, DataSummary Summary)
{
    /// <summary>Reads a file for one model. Prompts that leave no room for an answer are skipped, not cut.</summary>
    public static PromptData Read(Stream stream, Tokenizer tokenizer, TrainingDataOptions options, CancellationToken cancellationToken = default)
    {
        var (rows, account) = (new List<Prompt>(), new RowAccount());
        var chats = new Lazy<ChatEncoder>(() => new ChatEncoder(tokenizer, options.StrictSpecialTokens, options.ChatTemplate));
        RowFeed.Read(stream, options.Format ?? DatasetFormat.Prompts, account, (line, row) =>
        {
            var prompt = (PromptRow)row;
            var ids = prompt.Chat is { } chat ? chats.Value.EncodePrompt(chat) : tokenizer.Encode(prompt.Text!);
            if (ids.Length >= options.MaxLength || ids.Length == 0)
            {
                account.Skip(line, ids.Length == 0 ? "The prompt is empty." : $"The prompt has {ids.Length} tokens; within {options.MaxLength} no answer fits.");
                return;
            }

            account.Use(isLong: false, line, options.MaxLength);
            rows.Add(new Prompt(ids, prompt.Item, line));
        }, cancellationToken);
        return new PromptData(rows, account.Summary(rows.Select(row => (row.Ids.Length, 1))));
    }
}
