namespace PeftServer.Engine.Tokenizers.PreTokenizers;

/// <summary>A step that cuts text into words, within which the model then works.</summary>
internal abstract class PreTokenizer
{
    /// <summary>Appends the parts of <paramref name="text"/>; empty ones are dropped by the caller.</summary>
    public abstract void Split(AlignedText text, List<AlignedText> words);
}

/// <summary>One step after the other, each on the words of the one before.</summary>
internal sealed class SequencePreTokenizer(IReadOnlyList<PreTokenizer> steps) : PreTokenizer
{
    public IReadOnlyList<PreTokenizer> Steps => steps;

    public override void Split(AlignedText text, List<AlignedText> words)
    {
        List<AlignedText> current = [text];
        foreach (var step in steps)
        {
            var next = new List<AlignedText>(current.Count);
            foreach (var word in current)
            {
                if (!word.IsEmpty)
                {
                    step.Split(word, next);
                }
            }

            current = next;
        }

        words.AddRange(current);
    }
}
