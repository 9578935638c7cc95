using PeftServer.Engine.Tokenizers;
using PeftServer.Engine.Tokenizers.ChatTemplates;

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
        var faults = new FaultList(1);
        foreach (var (line, row) in DatasetFile.ReadRows(stream, faults, cancellationToken))
        {
            if (row is null)
            {
                account.Skip(line, faults.First[^1].Message);
                faults = new FaultList(1);
                continue;
            }

            try
            {
                switch (row)
                {
                    case PairRow pair when encoder.Encode(pair, line) is var encoded && Fits(encoded.PromptIds.Length, line):
                        pairs.Add(encoded);
                        account.Use(encoded.PromptIds.Length + Math.Max(encoded.ChosenIds.Length, encoded.RejectedIds.Length) > options.MaxLength, line, options.MaxLength);
                        break;
                    case LabelledRow labelled when encoder.Encode(labelled, line) is var encoded && Fits(encoded.PromptIds.Length, line):
                        judged.Add(encoded);
                        account.Use(encoded.PromptIds.Length + encoded.CompletionIds.Length > options.MaxLength, line, options.MaxLength);
                        break;
                    case not (PairRow or LabelledRow):
                        account.Skip(line, "The row has neither chosen and rejected, nor completion and label.");
                        break;
                }
            }
            catch (TemplateException e)
            {
                account.Skip(line, $"The chat template refuses the row: {e.Message}");
            }
        }

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
