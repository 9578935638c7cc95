using PeftServer.Engine.Data.Formats;
using PeftServer.Engine.Tokenizers;
using PeftServer.Engine.Tokenizers.ChatTemplates;

namespace PeftServer.Engine.Data;

/// <summary>How rows become tokens; the names are those of TRL's <c>SFTConfig</c>.</summary>
public sealed record TrainingDataOptions
{
    /// <summary>Rows longer than this many tokens are cut.</summary>
    public required int MaxLength { get; init; }

    /// <summary>Special tokens are matched in the template's own text only. See <see cref="ChatEncoder"/>.</summary>
    public bool StrictSpecialTokens { get; init; } = true;

    /// <summary>
    /// True: only what the assistant says is learnt, in completions too. False: every token. Absent: what the assistant says
    /// in rows of messages, all of a completion.
    /// </summary>
    public bool? AssistantOnlyLoss { get; init; }

    /// <summary>In rows of prompt and completion only the completion is learnt; false: every token.</summary>
    public bool CompletionOnlyLoss { get; init; } = true;

    /// <summary>Pairs of answers that are too long are cut; false: they are skipped.</summary>
    public bool CutsAnswers { get; init; } = true;

    /// <summary>Which end of a row that is too long is kept.</summary>
    public TruncationMode TruncationMode { get; init; }

    /// <summary>The format that rows shall have; absent: known by their fields.</summary>
    public DatasetFormat? Format { get; init; }

    /// <summary>Instead of the tokenizer's own.</summary>
    public ChatTemplate? ChatTemplate { get; init; }
}

/// <summary>Which end of a row that is too long is kept, by TRL's names.</summary>
public enum TruncationMode
{
    KeepStart,
    KeepEnd,
}

/// <summary>A dataset file as tokens, with an account of every row.</summary>
public sealed record TrainingData(IReadOnlyList<TrainingRow> Rows, DataSummary Summary)
{
    /// <summary>
    /// Reads a file for one model. A row that cannot be used is skipped and told in the summary; only a file that cannot be
    /// read at all throws.
    /// </summary>
    /// <exception cref="IOException">The file cannot be read.</exception>
    public static TrainingData Read(string path, Tokenizer tokenizer, TrainingDataOptions options, CancellationToken cancellationToken = default)
    {
        using var stream = File.OpenRead(path);
        return Read(stream, tokenizer, options, cancellationToken);
    }

    /// <inheritdoc cref="Read(string, Tokenizer, TrainingDataOptions, CancellationToken)"/>
    public static TrainingData Read(Stream stream, Tokenizer tokenizer, TrainingDataOptions options, CancellationToken cancellationToken = default)
    {
        var encoder = new RowEncoder(tokenizer, options);
        var (rows, account) = (new List<TrainingRow>(), new RowAccount());
        RowFeed.Read(stream, options.Format, account, (line, row) =>
        {
            if (row is ChatRow or TextRow or PlainTextRow or ChatCompletionRow or InstructionRow || (row is ClassRow && options is { AssistantOnlyLoss: false, CompletionOnlyLoss: false }))
            {
                rows.AddRange(account.Take(line, encoder.Encode(row), options.MaxLength, options.TruncationMode).Select(taken => taken with { Task = row.Task }));
                return;
            }

            account.Skip(line, row is PairRow or LabelledRow
                ? "The row compares answers; it is for methods of preference (dpo, kto, …), not for supervised training."
                : $"The row has {RowFormats.Describe(row.Format)}, from which supervised training cannot learn.");
        }, cancellationToken);
        return new TrainingData(rows, account.Summary(rows));
    }
}
