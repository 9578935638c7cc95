using PeftServer.Engine.Tokenizers.ChatTemplates;

namespace PeftServer.Engine.Data;

/// <summary>A row of a dataset file whose form is good.</summary>
internal abstract record DatasetRow(DatasetFormat Format)
{
    /// <summary>The task it is of, counted from 0.</summary>
    public int Task { get; init; }
}

/// <summary>A chat; the assistant's messages without <c>weight: 0</c> are learnt.</summary>
internal sealed record ChatRow(Conversation Chat, IReadOnlySet<int> Trained) : DatasetRow(DatasetFormat.Messages);

/// <summary>A text and how it goes on.</summary>
internal sealed record TextRow(string Prompt, string Completion) : DatasetRow(DatasetFormat.PromptCompletion);

/// <summary>A text that is learnt as it stands.</summary>
internal sealed record PlainTextRow(string Text) : DatasetRow(DatasetFormat.Text);

/// <summary>A chat, and the messages it goes on with: those from <paramref name="PromptMessages"/> on.</summary>
internal sealed record ChatCompletionRow(Conversation Chat, int PromptMessages) : DatasetRow(DatasetFormat.PromptCompletion);

/// <summary>A prompt with a better and a worse answer, each as a completion.</summary>
internal sealed record PairRow(DatasetRow Chosen, DatasetRow Rejected) : DatasetRow(DatasetFormat.Preference);

/// <summary>A prompt with an answer that is good or bad.</summary>
internal sealed record LabelledRow(DatasetRow Answer, bool Label) : DatasetRow(DatasetFormat.Judged);
