using PeftServer.Engine.Tokenizers;

namespace PeftServer.Engine.Data;

/// <summary>Words with tags, as tokens.</summary>
/// <param name="Ids">Token ids, special ones included.</param>
/// <param name="Labels">Number of the tag at the first token of each word; −100 elsewhere.</param>
/// <param name="Line">Line of the file, from 1.</param>
public sealed record TaggedSequence(int[] Ids, int[] Labels, long Line)
{
    public const int Ignored = -100;

    public int TargetCount => Labels.Count(label => label != Ignored);
}

/// <summary>A file of tagged words as tokens, with an account of every row.</summary>
public sealed record TaggedData(IReadOnlyList<TaggedSequence> Rows, DataSummary Summary)
{
    /// <summary>Reads a file for one model. Words are tokenized one by one; what is beyond the limit is cut.</summary>
    public static TaggedData Read(
        Stream stream, Tokenizer tokenizer, TrainingDataOptions options, IReadOnlyList<string> labels, CancellationToken cancellationToken = default)
    {
        var (rows, account, frame) = (new List<TaggedSequence>(), new RowAccount(), SequenceFrame.Of(tokenizer));
        RowFeed.Read(stream, options.Format ?? DatasetFormat.TokenClassification, account, (line, row) =>
        {
            var tagged = (TaggedRow)row;
            if (tagged.Tags.FirstOrDefault(tag => LabelSet.IndexOf(labels, tag) < 0) is { } unknown)
            {
                account.Skip(line, LabelSet.Unknown(labels, unknown));
                return;
            }

            var (ids, marks) = (new List<int>(frame.Before), Enumerable.Repeat(TaggedSequence.Ignored, frame.Before.Length).ToList());
            for (var i = 0; i < tagged.Words.Count; i++)
            {
                var word = frame.EncodeWord(tokenizer, tagged.Words[i], isFirst: i == 0);
                ids.AddRange(word);
                marks.AddRange(word.Select((_, j) => j == 0 ? LabelSet.IndexOf(labels, tagged.Tags[i]) : TaggedSequence.Ignored));
            }

            var room = options.MaxLength - frame.After.Length;
            var isLong = ids.Count > room;
            if (isLong)
            {
                ids.RemoveRange(room, ids.Count - room);
                marks.RemoveRange(room, marks.Count - room);
            }

            var sequence = new TaggedSequence([.. ids, .. frame.After], [.. marks, .. frame.After.Select(_ => TaggedSequence.Ignored)], line);
            if (sequence.TargetCount == 0)
            {
                account.Skip(line, "The words have no token to learn.");
                return;
            }

            account.Use(isLong, line, options.MaxLength);
            rows.Add(sequence);
        }, cancellationToken);
        return new TaggedData(rows, account.Summary(rows.Select(row => (row.Ids.Length, row.TargetCount))));
    }
}
