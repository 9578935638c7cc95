namespace PeftServer.Engine.Tokenizers;

/// <summary>A token that is looked for in the text itself, before the model sees it, under the flags of Hugging Face's AddedToken.</summary>
public sealed record AddedToken(int Id, string Content)
{
    /// <summary>Matches only where no letter, digit or underscore touches it.</summary>
    public bool SingleWord { get; init; }

    /// <summary>Takes the white space before it along.</summary>
    public bool Lstrip { get; init; }

    /// <summary>Takes the white space after it along.</summary>
    public bool Rstrip { get; init; }

    /// <summary>Is looked for in normalised text, in its own normalised form.</summary>
    public bool Normalized { get; init; }

    /// <summary>Marks structure, not text: left out when decoding for people.</summary>
    public bool Special { get; init; }
}
