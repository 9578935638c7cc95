namespace PeftServer.Core;

/// <summary>Part of a list, and whether more follows.</summary>
public sealed record Page<T>(IReadOnlyList<T> Items, bool HasMore)
{
    /// <summary>Cuts rows that were read one further than <paramref name="limit"/>.</summary>
    internal static Page<T> Of(List<T> oneMore, int limit) =>
        new(oneMore.Count > limit ? oneMore[..limit] : oneMore, oneMore.Count > limit);
}
