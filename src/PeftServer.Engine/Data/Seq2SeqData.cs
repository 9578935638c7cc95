using PeftServer.Engine.Tokenizers;

namespace PeftServer.Engine.Data;

/// <summary>A text and what becomes of it, as tokens, special ones included.</summary>
public sealed record SequencePair(int[] SourceIds, int[] TargetIds, long Line);

/// <summary>A file of pairs of texts as tokens, with an account of every row.</summary>
public sealed record Seq2SeqData(IReadOnlyList<SequencePair> Rows, DataSummary Summary)
{
    /// <summary>Reads a file for one model. What is too long loses its end, on either side.</summary>
    public static Seq2SeqData Read(
        Stream stream, Tokenizer tokenizer, TrainingDataOptions options, int maxTargetLength, CancellationToken cancellationToken = default)
    {
        var (rows, account) = (new List<SequencePair>(), new RowAccount());
        RowFeed.Read(stream, options.Format ?? DatasetFormat.Seq2Seq, account, (line, row) =>
        {
            var pair = (SourceTargetRow)row;
            var (source, cutSource) = Encode(tokenizer, pair.Source, options.MaxLength);
            var (target, cutTarget) = Encode(tokenizer, pair.Target, maxTargetLength);
            account.Use(cutSource || cutTarget, line, cutSource ? options.MaxLength : maxTargetLength);
            rows.Add(new SequencePair(source, target, line));
        }, cancellationToken);
        return new Seq2SeqData(rows, account.Summary(rows.Select(row => (row.SourceIds.Length + row.TargetIds.Length, row.TargetIds.Length))));
    }

    private static (int[] Ids, bool IsCut) Encode(Tokenizer tokenizer, string text, int maxLength)
    {
        var whole = tokenizer.Encode(text);
        return whole.Length <= maxLength
            ? (whole, false)
            : ([.. tokenizer.EncodeWithOffsets(text, truncation: new TruncationOptions { MaxLength = maxLength }).Ids], true);
    }
}
