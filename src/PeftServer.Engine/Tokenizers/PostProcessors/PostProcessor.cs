namespace PeftServer.Engine.Tokenizers.PostProcessors;

/// <summary>A step after the model: puts the special tokens around one text or a pair, and corrects offsets.</summary>
internal abstract class PostProcessor
{
    /// <summary>Tokens it will add, so that truncation leaves room for them.</summary>
    public abstract int AddedTokens(bool pair);

    public abstract List<TokenEncoding> Process(List<TokenEncoding> encodings, bool addSpecialTokens);
}

/// <summary>One step after the other.</summary>
internal sealed class SequencePostProcessor(IReadOnlyList<PostProcessor> steps) : PostProcessor
{
    public override int AddedTokens(bool pair) => steps.Sum(s => s.AddedTokens(pair));

    public override List<TokenEncoding> Process(List<TokenEncoding> encodings, bool addSpecialTokens)
    {
        foreach (var step in steps)
        {
            encodings = step.Process(encodings, addSpecialTokens);
        }

        return encodings;
    }
}
