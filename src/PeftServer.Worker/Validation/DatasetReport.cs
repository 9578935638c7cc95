using PeftServer.Core.Jobs;
using PeftServer.Engine.Data;
using PeftServer.Engine.Training;

namespace PeftServer.Worker.Validation;

/// <summary>What became of the rows of one file, in words for the job's owner.</summary>
/// <param name="Field">training_file or validation_file.</param>
/// <param name="FileId">The file.</param>
/// <param name="Summary">The account of its rows.</param>
/// <param name="MaxLength">Tokens that a row may have.</param>
/// <param name="Misfit">What in a row does not suit the method; null where all do.</param>
internal sealed record DatasetReport(string Field, string FileId, DataSummary Summary, int MaxLength, string? Misfit = null)
{
    private const int LinesTold = 10;

    /// <summary>Why the file is of no use; null when it is.</summary>
    public JobError? Fault => Summary switch
    {
        { Rows: 0 } => Invalid("it has no rows. Write one JSON object a line."),
        { Used: 0 } => Invalid($"none of its {Summary.Rows} rows can be used. {string.Join(" ", Lines())}"),
        { TrainedTokens: 0 } => Invalid(
            $"no token of its {Summary.Used} rows would be learnt. Rows need an answer (an assistant message with weight 1, or a completion) within the first {MaxLength} tokens."),
        _ => Misfit is null ? null : Invalid(Misfit),
    };

    /// <summary>The account as events.</summary>
    public void Tell(JobTransaction transaction)
    {
        transaction.Say(
            $"{Name}: {Summary.Used} of {Summary.Rows} rows are used, {Summary.Tokens} tokens, {Summary.TrainedTokens} of them learnt; the longest row has {Summary.LongestRow}");
        if (Summary.Cut > 0)
        {
            transaction.Say($"{Name}: {Summary.Cut} rows are longer than {MaxLength} tokens and lose their end", TrainingEventLevel.Warn);
        }

        if (Summary.Skipped > 0)
        {
            transaction.Say($"{Name}: {Summary.Skipped} rows are not used. {string.Join(" ", Lines())}", TrainingEventLevel.Warn);
        }
    }

    private string Name => $"{(Field == "training_file" ? "Training" : "Validation")} file {FileId}";

    private JobError Invalid(string why) => new($"invalid_{Field}", $"The file {FileId} cannot be trained on: {why}", Field);

    private IEnumerable<string> Lines() =>
        Summary.Notes.Where(note => note.Outcome is RowOutcome.Skipped).Take(LinesTold).Select(note => $"Line {note.Line}: {note.Reason}");
}
