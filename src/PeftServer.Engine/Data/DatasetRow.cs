using System.Text.Json;
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

/// <summary>
/// An instruction, what it is about, and the answer (<see href="https://github.com/tatsu-lab/stanford_alpaca"/>). A chat where the model has a template, else Alpaca's
/// own text.
/// </summary>
internal sealed record InstructionRow(string? System, string Instruction, string Input, string Output) : DatasetRow(DatasetFormat.Alpaca)
{
    public DatasetRow AsCompletion(bool hasTemplate)
    {
        var question = Input.Length == 0 ? Instruction : $"{Instruction}\n\n{Input}";
        if (hasTemplate)
        {
            return System is null
                ? new ChatCompletionRow(Conversation.Of(("user", question), ("assistant", Output)), 1)
                : new ChatCompletionRow(Conversation.Of(("system", System), ("user", question), ("assistant", Output)), 2);
        }

        var prompt = Input.Length == 0
            ? $"Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n### Instruction:\n{Instruction}\n\n### Response:\n"
            : "Below is an instruction that describes a task, paired with an input that provides further context. Write a response that appropriately completes the request."
                + $"\n\n### Instruction:\n{Instruction}\n\n### Input:\n{Input}\n\n### Response:\n";
        return new TextRow(System is null ? prompt : $"{System}\n\n{prompt}", Output);
    }
}

/// <summary>A prompt with a better and a worse answer, each as a completion, and by how much the one shall win.</summary>
internal sealed record PairRow(DatasetRow Chosen, DatasetRow Rejected, double? Margin = null) : DatasetRow(DatasetFormat.Preference);

/// <summary>A prompt with an answer that is good or bad.</summary>
internal sealed record LabelledRow(DatasetRow Answer, bool Label) : DatasetRow(DatasetFormat.Judged);

/// <summary>A chat or a text that waits for an answer; graders see the whole row.</summary>
internal sealed record PromptRow(Conversation? Chat, string? Text, JsonElement Item) : DatasetRow(DatasetFormat.Prompts);

/// <summary>A text, or two that belong together, of a class.</summary>
internal sealed record ClassRow(string Text, string? Pair, string Label) : DatasetRow(DatasetFormat.Classification);

/// <summary>Words, each with a tag.</summary>
internal sealed record TaggedRow(IReadOnlyList<string> Words, IReadOnlyList<string> Tags) : DatasetRow(DatasetFormat.TokenClassification);

/// <summary>A question about a text, and answers that are parts of it, by where they begin (in code points); none: it is not answered there.</summary>
internal sealed record QuestionRow(string Question, string Context, IReadOnlyList<(string Text, int Start)> Answers) : DatasetRow(DatasetFormat.Squad);

/// <summary>A text and what becomes of it.</summary>
internal sealed record SourceTargetRow(string Source, string Target) : DatasetRow(DatasetFormat.Seq2Seq);

/// <summary>Texts that are alike, then ones that are not; or two texts and how alike they are.</summary>
internal sealed record AlikeRow(IReadOnlyList<string> Texts, double? Score) : DatasetRow(DatasetFormat.Embedding);
