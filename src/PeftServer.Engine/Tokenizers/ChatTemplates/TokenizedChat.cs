namespace PeftServer.Engine.Tokenizers.ChatTemplates;

/// <summary>A chat as token ids, with the mask of those a model learns to say.</summary>
/// <param name="Ids">Token ids.</param>
/// <param name="Trained">One for each id: true where it is a target of the loss.</param>
public sealed record TokenizedChat(int[] Ids, bool[] Trained)
{
    /// <summary>How many ids are targets.</summary>
    public int TrainedCount => Trained.Count(t => t);
}
