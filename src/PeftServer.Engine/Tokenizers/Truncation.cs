namespace PeftServer.Engine.Tokenizers;

/// <summary>How to shorten texts to a number of tokens, by the names of the tokenizers library.</summary>
public sealed record TruncationOptions
{
    /// <summary>Most tokens, those of the post-processor included.</summary>
    public required int MaxLength { get; init; }

    /// <summary>Tokens that an overflowing part repeats of the part before it.</summary>
    public int Stride { get; init; }

    /// <summary>Which text of a pair is shortened.</summary>
    public TruncationStrategy Strategy { get; init; } = TruncationStrategy.LongestFirst;

    /// <summary>Where tokens are taken off.</summary>
    public EncodingSide Direction { get; init; } = EncodingSide.Right;
}

public enum TruncationStrategy
{
    LongestFirst,
    OnlyFirst,
    OnlySecond,
}

/// <summary>An end of an encoding.</summary>
public enum EncodingSide
{
    Left,
    Right,
}

/// <summary>How to lengthen encodings to one length, by the names of the tokenizers library.</summary>
public sealed record PaddingOptions
{
    /// <summary>The length to reach; absent: that of the longest.</summary>
    public int? Length { get; init; }

    public int? PadToMultipleOf { get; init; }

    public EncodingSide Direction { get; init; } = EncodingSide.Right;

    public required int PadId { get; init; }

    public int PadTypeId { get; init; }

    public required string PadToken { get; init; }
}

/// <summary>Shortens and lengthens encodings as the tokenizers library does.</summary>
internal static class EncodingLengths
{
    /// <summary>Shortens one text or a pair to <paramref name="maxLength"/> tokens together.</summary>
    public static void Truncate(List<TokenEncoding> encodings, TruncationOptions options, int maxLength)
    {
        var total = encodings.Sum(e => e.Count);
        if (total <= maxLength)
        {
            return;
        }

        if (options.Strategy is TruncationStrategy.LongestFirst || maxLength == 0)
        {
            var (first, second) = encodings.Count == 1 ? (maxLength, 0) : Share(encodings[0].Count, encodings[1].Count, maxLength);
            encodings[0] = Cut(encodings[0], first, options);
            if (encodings.Count > 1)
            {
                encodings[1] = Cut(encodings[1], second, options);
            }

            return;
        }

        var index = options.Strategy is TruncationStrategy.OnlyFirst ? 0 : 1;
        var left = index < encodings.Count ? encodings[index].Count - (total - maxLength) : throw new ArgumentException("OnlySecond needs a pair of texts.", nameof(options));
        encodings[index] = left > 0
            ? Cut(encodings[index], left, options)
            : throw new ArgumentException($"The text to shorten is too short to reach {maxLength} tokens. Use LongestFirst.", nameof(options));
    }

    public static void Pad(IReadOnlyList<TokenEncoding> encodings, PaddingOptions options)
    {
        var length = options.Length ?? encodings.Select(e => e.Count).DefaultIfEmpty(0).Max();
        if (options.PadToMultipleOf is > 0 and var multiple)
        {
            length = (length + multiple - 1) / multiple * multiple;
        }

        foreach (var encoding in encodings)
        {
            encoding.Pad(length, options);
        }
    }

    // The shorter text keeps what it has while the longer one has more than half.
    private static (int First, int Second) Share(int first, int second, int maxLength)
    {
        var (shorter, longer) = (Math.Min(first, second), Math.Max(first, second));
        longer = shorter > maxLength ? shorter : Math.Max(shorter, maxLength - shorter);
        if (shorter + longer > maxLength)
        {
            shorter = maxLength / 2;
            longer = shorter + (maxLength % 2);
        }

        return first > second ? (longer, shorter) : (shorter, longer);
    }

    private static TokenEncoding Cut(TokenEncoding encoding, int length, TruncationOptions options)
    {
        if (length >= encoding.Count)
        {
            return encoding;
        }

        if (length == 0)
        {
            return new TokenEncoding { OverflowingParts = [encoding] };
        }

        if (options.Stride >= length)
        {
            throw new ArgumentException($"A stride of {options.Stride} leaves nothing new in parts of {length} tokens.", nameof(options));
        }

        var parts = new List<TokenEncoding>();
        for (var at = 0; ; at += length - options.Stride)
        {
            var size = Math.Min(length, encoding.Count - at);
            parts.Add(encoding.Slice(options.Direction is EncodingSide.Right ? at : encoding.Count - at - size, size));
            if (at + size >= encoding.Count)
            {
                break;
            }
        }

        parts[0].OverflowingParts = parts[1..];
        return parts[0];
    }
}
