using PeftServer.Engine.Tokenizers;

namespace PeftServer.Engine.Data;

/// <summary>Texts that are compared, as tokens.</summary>
/// <param name="Texts">Anchor, positive and any negatives; or two texts.</param>
/// <param name="Score">How alike the two are; absent for anchors.</param>
/// <param name="Line">Line of the file, from 1.</param>
public sealed record TextGroup(IReadOnlyList<int[]> Texts, float? Score, long Line);

/// <summary>A file of texts that are alike as tokens, with an account of every row.</summary>
public sealed record AlikeData(IReadOnlyList<TextGroup> Rows, DataSummary Summary)
{
    /// <summary>Reads a file for one model. All rows have as many texts as the first one; others are skipped.</summary>
    public static AlikeData Read(Stream stream, Tokenizer tokenizer, TrainingDataOptions options, CancellationToken cancellationToken = default)
    {
        var (rows, account) = (new List<TextGroup>(), new RowAccount());
        var limit = new TruncationOptions { MaxLength = options.MaxLength };
        RowFeed.Read(stream, options.Format ?? DatasetFormat.Embedding, account, (line, row) =>
        {
            var alike = (AlikeRow)row;
            if (rows is [var first, ..] && (first.Texts.Count != alike.Texts.Count || first.Score.HasValue != alike.Score.HasValue))
            {
                account.Skip(line, $"The row has {alike.Texts.Count} texts{(alike.Score is null ? "" : " and a score")}, the first one {first.Texts.Count}{(first.Score is null ? "" : " and a score")}.");
                return;
            }

            var whole = alike.Texts.Select(text => tokenizer.EncodeWithOffsets(text)).ToList();
            var isLong = whole.Exists(text => text.Count > options.MaxLength);
            account.Use(isLong, line, options.MaxLength);
            rows.Add(new TextGroup(
                [.. whole.Zip(alike.Texts, (ids, text) => ids.Count > options.MaxLength ? tokenizer.EncodeWithOffsets(text, truncation: limit) : ids).Select(ids => ids.Ids.ToArray())],
                (float?)alike.Score, line));
        }, cancellationToken);
        return new AlikeData(rows, account.Summary(rows.Select(row => (row.Texts.Sum(text => text.Length), 1))));
    }
}
