namespace PeftServer.Engine.Tokenizers.Decoders;

/// <summary>A step from tokens back to text; the results of the last step are joined.</summary>
internal abstract class Decoder
{
    public abstract List<string> Decode(List<string> tokens);
}

/// <summary>One step after the other.</summary>
internal sealed class SequenceDecoder(IReadOnlyList<Decoder> steps) : Decoder
{
    public override List<string> Decode(List<string> tokens)
    {
        foreach (var step in steps)
        {
            tokens = step.Decode(tokens);
        }

        return tokens;
    }
}
