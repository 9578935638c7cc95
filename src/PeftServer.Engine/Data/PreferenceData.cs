using PeftServer.Engine.Data.Formats;
using PeftServer.Engine.Tokenizers;

namespace PeftServer.Engine.Data;

/// <summary>A file of preferences or judged answers as tokens, with an account of every row.</summary>
/// <param name="Pairs">Rows with chosen and rejected.</param>
/// <param name="Judged">Rows with completion and label.</param>
/// <param name="Summary">What became of every row; Tokens counts prompts and answers, TrainedTokens the answers.</param>
public sealed record PreferenceData(IReadOnlyList<PreferenceRow> Pairs, IReadOnlyList<JudgedRow> Judged, DataSummary Summary)
{
    /// <summary>
    /// Reads a file for one model. A row whose prompt alone fills the limit is skipped, as nothing of an answer would be left;
    /// answers are cut where they are put together with their prompt.
    /// </summary>
    public static PreferenceData Read(Stream stream, Tokenizer tokenizer, TrainingDataOptions options, CancellationToken cancellationToken = default)
    {
        var encoder = new PreferenceEncoder(tokenizer, options);
        var account = new RowAccount();
        var pairs = new List<PreferenceRow>();
        var judged = new List<JudgedRow>();
        RowFeed.Read(stream, options.Format, account, (line, row) =>
        {
            switch (row)
            {
                case PairRow pair when encoder.Encode(pair, line) is var encoded && Fits(encoded.PromptIds.Length, line):
                    var longest = encoded.PromptIds.Length + Math.Max(encoded.ChosenIds.Length, encoded.RejectedIds.Length);
                    if (longest > options.MaxLength && !options.CutsAnswers)
                    {
                        account.Skip(line, $"The pair is longer than {options.MaxLength} tokens. It is not cut: the end of an answer is what is judged.");
                        break;
                    }

                    pairs.Add(encoded);
                    account.Use(longest > options.MaxLength, line, options.MaxLength);
                    break;
                case LabelledRow labelled when encoder.Encode(labelled, line) is var encoded && Fits(encoded.PromptIds.Length, line):
                    judged.Add(encoded);
                    account.Use(encoded.PromptIds.Length + encoded.CompletionIds.Length > options.MaxLength, line, options.MaxLength);
                    break;
                case not (PairRow or LabelledRow):
                    account.Skip(line, $"The row has neither chosen and rejected, nor completion and label; it has {RowFormats.Describe(row.Format)}.");
                    break;
            }
        }, cancellationToken);

        return new PreferenceData(pairs, judged, account.Summary(
        [
            .. pairs.SelectMany(p => new[] { p.Chosen(options.MaxLength, options.TruncationMode), p.Rejected(options.MaxLength, options.TruncationMode) }.Select(c => new TrainingRow(c.Ids, c.Trained, p.Line))),
            .. judged.Select(j => j.Completion(options.MaxLength, options.TruncationMode)).Select(c => new TrainingRow(c.Ids, c.Trained, 0)),
        ]));

        bool Fits(int prompt, long line)
        {
            var fits = options.TruncationMode is TruncationMode.KeepEnd || prompt < options.MaxLength;
            if (!fits)
            {
                account.Skip(line, $"The prompt alone fills the {options.MaxLength} tokens.");
            }

            return fits;
        }
    }
}
