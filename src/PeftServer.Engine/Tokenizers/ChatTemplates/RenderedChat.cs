namespace PeftServer.Engine.Tokenizers.ChatTemplates;

/// <summary>A rendered chat, which knows which words are the template's and which a message's.</summary>
public sealed class RenderedChat
{
    internal RenderedChat(TextValue text, bool hasGenerationBlocks)
    {
        Text = text.Text;
        HasGenerationBlocks = hasGenerationBlocks;
        var pieces = new List<RenderedPiece>();
        var start = 0;
        foreach (var run in text.Runs)
        {
            var message = run.Provenance.Message;
            pieces.Add(new RenderedPiece(start, run.End - start, message >= 0 ? message : null, message == Provenance.Template, run.Provenance.Generated));
            start = run.End;
        }

        Pieces = pieces;
    }

    public string Text { get; }

    /// <summary>The text in stretches, from its start to its end without a gap.</summary>
    public IReadOnlyList<RenderedPiece> Pieces { get; }

    /// <summary>The template marks what an assistant says by <c>{% generation %}</c>.</summary>
    public bool HasGenerationBlocks { get; }
}

/// <summary>A stretch of a rendered chat. Offsets are UTF-16 units.</summary>
/// <param name="Start">Where it begins.</param>
/// <param name="Length">How long it is.</param>
/// <param name="Message">Index of the message whose content it is; null for the template's own text and for tools and the like.</param>
/// <param name="IsTemplate">The template's own text, where special tokens mean what they say.</param>
/// <param name="IsGenerated">It stands in a <c>{% generation %}</c> block.</param>
public readonly record struct RenderedPiece(int Start, int Length, int? Message, bool IsTemplate, bool IsGenerated)
{
    public int End => Start + Length;
}
