using PeftServer.Engine.Tokenizers;

namespace PeftServer.Engine.Data;

/// <summary>A text of a known class, as tokens.</summary>
/// <param name="Ids">Token ids, special ones included.</param>
/// <param name="TypeIds">0 for the first text, 1 for the second.</param>
/// <param name="Label">Number of the class.</param>
/// <param name="Line">Line of the file, from 1.</param>
public sealed record LabelledSequence(int[] Ids, int[] TypeIds, int Label, long Line);

/// <summary>A file of texts and their classes as tokens, with an account of every row.</summary>
public sealed record ClassData(IReadOnlyList<LabelledSequence> Rows, DataSummary Summary)
{
    /// <summary>Reads a file for one model. Texts that are too long lose their ends, the longer one of a pair first.</summary>
    public static ClassData Read(
        Stream stream, Tokenizer tokenizer, TrainingDataOptions options, IReadOnlyList<string> labels, CancellationToken cancellationToken = default)
    {
        var (rows, account) = (new List<LabelledSequence>(), new RowAccount());
        var limit = new TruncationOptions { MaxLength = options.MaxLength };
        RowFeed.Read(stream, options.Format ?? DatasetFormat.Classification, account, (line, row) =>
        {
            var text = (ClassRow)row;
            var label = LabelSet.IndexOf(labels, text.Label);
            if (label < 0)
            {
                account.Skip(line, LabelSet.Unknown(labels, text.Label));
                return;
            }

            var whole = tokenizer.EncodeWithOffsets(text.Text, text.Pair);
            var isLong = whole.Count > options.MaxLength;
            var kept = isLong ? tokenizer.EncodeWithOffsets(text.Text, text.Pair, truncation: limit) : whole;
            account.Use(isLong, line, options.MaxLength);
            rows.Add(new LabelledSequence([.. kept.Ids], [.. kept.TypeIds], label, line));
        }, cancellationToken);
        return new ClassData(rows, account.Summary(rows.Select(row => (row.Ids.Length, 1))));
    }
}
