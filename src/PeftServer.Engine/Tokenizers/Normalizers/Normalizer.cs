namespace PeftServer.Engine.Tokenizers.Normalizers;

/// <summary>A step that rewrites text before it is cut into words.</summary>
internal abstract class Normalizer
{
    public abstract AlignedText Normalize(AlignedText text);
}

/// <summary>One step after the other.</summary>
internal sealed class SequenceNormalizer(IReadOnlyList<Normalizer> steps) : Normalizer
{
    public override AlignedText Normalize(AlignedText text)
    {
        foreach (var step in steps)
        {
            text = step.Normalize(text);
        }

        return text;
    }
}
