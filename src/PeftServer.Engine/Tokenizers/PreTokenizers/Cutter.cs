namespace PeftServer.Engine.Tokenizers.PreTokenizers;

/// <summary>A part of a text, in UTF-16 units.</summary>
internal readonly record struct TextRange(int Start, int Length);

/// <summary>A pre-tokenizer that only cuts: its words are slices of the text.</summary>
internal abstract class Cutter : PreTokenizer
{
    /// <summary>Appends the parts of <paramref name="text"/> that are words, in order; empty ones do no harm.</summary>
    public abstract void Cut(ReadOnlySpan<char> text, List<TextRange> parts);

    public sealed override void Split(AlignedText text, List<AlignedText> words)
    {
        var parts = new List<TextRange>();
        Cut(text.Span, parts);
        foreach (var part in parts)
        {
            words.Add(text.Slice(part.Start, part.Length));
        }
    }
}
