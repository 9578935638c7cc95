using PeftServer.Engine.Tokenizers.ChatTemplates;

namespace PeftServer.Engine.Data;

/// <summary>Cuts rows to length and writes down what became of each.</summary>
internal sealed class RowAccount
{
    private readonly Dictionary<string, long> _reasons = new(StringComparer.Ordinal);
    private readonly List<RowNote> _notes = [];
    private readonly long[] _counts = new long[4];
    private long _rows;

    public void Skip(long line, string reason)
    {
        _rows++;
        Note(line, RowOutcome.Skipped, reason);
    }

    /// <summary>A row that is used; cut where it is too long.</summary>
    public void Use(bool isLong, long line, int maxLength)
    {
        _rows++;
        _counts[(int)RowOutcome.Used]++;
        if (isLong)
        {
            Note(line, RowOutcome.Cut, CutReason(maxLength));
        }
    }

    /// <summary>Says that a row which is used became several.</summary>
    public void Split(long line, string reason) => Note(line, RowOutcome.Split, reason);

    public List<TrainingRow> Take(long line, IReadOnlyList<TokenizedChat> parts, int maxLength, TruncationMode mode = TruncationMode.KeepStart)
    {
        _rows++;
        var taken = new List<TrainingRow>(parts.Count);
        var wasCut = false;
        foreach (var part in parts)
        {
            var isLong = part.Ids.Length > maxLength;
            var kept = !isLong ? .. : mode is TruncationMode.KeepStart ? ..maxLength : ^maxLength..;
            var row = new TrainingRow(part.Ids[kept], part.Trained[kept], line);
            wasCut |= isLong;
            if (row.TrainedCount > 0)
            {
                taken.Add(row);
            }
        }

        if (taken.Count == 0)
        {
            Note(line, RowOutcome.Skipped, wasCut ? $"Nothing to learn is within the {maxLength} tokens that are kept." : "The row has no token to learn.");
            return taken;
        }

        _counts[(int)RowOutcome.Used]++;
        if (parts.Count > 1)
        {
            Note(line, RowOutcome.Split, "The chat template shows earlier messages differently later on; each answer is learnt from what it was given.");
        }

        if (wasCut)
        {
            Note(line, RowOutcome.Cut, CutReason(maxLength));
        }

        return taken;
    }

    public DataSummary Summary(IReadOnlyList<TrainingRow> rows) => Summary(rows.Select(row => (row.InputIds.Length, row.TrainedCount)));

    /// <summary>The account, given how many ids each row that is used has, and how many targets.</summary>
    public DataSummary Summary(IEnumerable<(int Tokens, int Targets)> used)
    {
        var rows = used.ToList();
        return new DataSummary
        {
            Rows = _rows,
            Used = _counts[(int)RowOutcome.Used],
            Cut = _counts[(int)RowOutcome.Cut],
            Split = _counts[(int)RowOutcome.Split],
            Skipped = _counts[(int)RowOutcome.Skipped],
            Tokens = rows.Sum(row => (long)row.Tokens),
            TrainedTokens = rows.Sum(row => (long)row.Targets),
            LongestRow = rows.Count == 0 ? 0 : rows.Max(row => row.Tokens),
            Reasons = _reasons,
            Notes = _notes,
        };
    }

    private static string CutReason(int maxLength) => $"The row is longer than {maxLength} tokens and was cut.";

    private void Note(long line, RowOutcome outcome, string reason)
    {
        _counts[(int)outcome]++;
        _reasons[reason] = _reasons.GetValueOrDefault(reason) + 1;
        if (_notes.Count < DataSummary.MaxNotes)
        {
            _notes.Add(new RowNote(line, outcome, reason));
        }
    }
}
