namespace PeftServer.Engine.Tokenizers;

/// <summary>A text as tokens, with all that is known of each of them. The lists run in parallel.</summary>
public sealed class TokenEncoding
{
    internal TokenEncoding(
        List<int> ids, List<string> tokens, List<(int Start, int End)> offsets, List<bool> specialTokensMask, List<int> typeIds, List<bool> attentionMask)
    {
        (MutableIds, MutableTokens, MutableOffsets) = (ids, tokens, offsets);
        (MutableSpecial, MutableTypes, MutableAttention) = (specialTokensMask, typeIds, attentionMask);
    }

    internal TokenEncoding()
        : this([], [], [], [], [], [])
    {
    }

    public IReadOnlyList<int> Ids => MutableIds;

    public IReadOnlyList<string> Tokens => MutableTokens;

    /// <summary>Start and end in the original text, counted in Unicode code points; (0, 0) for what a template put in.</summary>
    public IReadOnlyList<(int Start, int End)> Offsets => MutableOffsets;

    /// <summary>True where the post-processor put a token in.</summary>
    public IReadOnlyList<bool> SpecialTokensMask => MutableSpecial;

    /// <summary>0 for the first text, 1 for the second, as the post-processor says.</summary>
    public IReadOnlyList<int> TypeIds => MutableTypes;

    /// <summary>False on padding.</summary>
    public IReadOnlyList<bool> AttentionMask => MutableAttention;

    public int Count => MutableIds.Count;

    /// <summary>What truncation cut off, in parts of the same length.</summary>
    public IReadOnlyList<TokenEncoding> Overflowing => OverflowingParts;

    internal List<TokenEncoding> OverflowingParts { get; set; } = [];

    internal List<int> MutableIds { get; }

    internal List<string> MutableTokens { get; }

    internal List<(int Start, int End)> MutableOffsets { get; }

    internal List<bool> MutableSpecial { get; }

    internal List<int> MutableTypes { get; }

    internal List<bool> MutableAttention { get; }

    internal void Add(int id, string token, (int Start, int End) offsets, bool special, int typeId)
    {
        MutableIds.Add(id);
        MutableTokens.Add(token);
        MutableOffsets.Add(offsets);
        MutableSpecial.Add(special);
        MutableTypes.Add(typeId);
        MutableAttention.Add(true);
    }

    internal void Append(TokenEncoding other, int? typeId = null)
    {
        MutableIds.AddRange(other.MutableIds);
        MutableTokens.AddRange(other.MutableTokens);
        MutableOffsets.AddRange(other.MutableOffsets);
        MutableSpecial.AddRange(other.MutableSpecial);
        MutableTypes.AddRange(typeId is { } id ? Enumerable.Repeat(id, other.Count) : other.MutableTypes);
        MutableAttention.AddRange(other.MutableAttention);
    }

    internal void Pad(int length, PaddingOptions options)
    {
        var missing = length - Count;
        if (missing > 0)
        {
            var at = options.Direction is EncodingSide.Left ? 0 : Count;
            MutableIds.InsertRange(at, Enumerable.Repeat(options.PadId, missing));
            MutableTokens.InsertRange(at, Enumerable.Repeat(options.PadToken, missing));
            MutableOffsets.InsertRange(at, Enumerable.Repeat((0, 0), missing));
            MutableSpecial.InsertRange(at, Enumerable.Repeat(true, missing));
            MutableTypes.InsertRange(at, Enumerable.Repeat(options.PadTypeId, missing));
            MutableAttention.InsertRange(at, Enumerable.Repeat(false, missing));
        }

        OverflowingParts.ForEach(part => part.Pad(length, options));
    }

    internal TokenEncoding Slice(int start, int count) => new(
        MutableIds.GetRange(start, count),
        MutableTokens.GetRange(start, count),
        MutableOffsets.GetRange(start, count),
        MutableSpecial.GetRange(start, count),
        MutableTypes.GetRange(start, count),
        MutableAttention.GetRange(start, count));
}
