namespace PeftServer.Engine.Data;

/// <summary>A row ready for training.</summary>
/// <param name="InputIds">Token ids.</param>
/// <param name="Trained">
/// One for each id: true where the id is a target of the loss, predicted from the ids before it. (In transformers' terms:
/// false is a label of −100. A target at position 0 has nothing before it and counts in no loss.)
/// </param>
/// <param name="Line">Line of the file, from 1.</param>
public sealed record TrainingRow(int[] InputIds, bool[] Trained, long Line)
{
    /// <summary>The task it is of, for methods that know several.</summary>
    public int Task { get; init; }

    /// <summary>Targets that count: those with something before them.</summary>
    public int TrainedCount => Trained.AsSpan(Math.Min(1, Trained.Length)).Count(true);
}
