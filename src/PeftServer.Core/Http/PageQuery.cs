using System.Globalization;
using System.Reflection;

namespace PeftServer.Core.Http;

/// <summary>OpenAI's paging: <c>limit</c> objects after the one with the id <c>after</c>.</summary>
public sealed record PageQuery(int? Limit, string? After, bool Ascending) : IBindableFromHttpContext<PageQuery>
{
    public static ValueTask<PageQuery?> BindAsync(HttpContext context, ParameterInfo parameter)
    {
        var query = context.Request.Query;
        return ValueTask.FromResult<PageQuery?>(new(
            ReadLimit(query["limit"]),
            query["after"] is [{ Length: > 0 } after] ? after : null,
            ReadAscending(query["order"])));
    }

    /// <summary>The limit, or <paramref name="usual"/>. Throws <see cref="ApiErrorException"/> beyond <paramref name="most"/>.</summary>
    public int LimitOr(int usual, int most) => Limit is null || Limit <= most
        ? Limit ?? usual
        : throw new ApiErrorException(ApiError.BadRequest($"limit is {Limit}; it must be from 1 to {most}.", "limit", "invalid_value"));

    /// <summary>The answer where <see cref="After"/> is no id of the list.</summary>
    public ApiError NoSuch(string what) =>
        ApiError.BadRequest(
            $"after is '{Shown(After ?? "")}', and there is no such {what}. Give the last_id of the page before.",
            "after", "invalid_value");

    private static int? ReadLimit(string? text) =>
        string.IsNullOrEmpty(text) ? null
        : int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out var limit) && limit > 0 ? limit
        : throw new ApiErrorException(ApiError.BadRequest($"limit is '{Shown(text)}'; it must be a whole number from 1.", "limit", "invalid_value"));

    private static bool ReadAscending(string? text) => text switch
    {
        null or "" or "desc" => false,
        "asc" => true,
        _ => throw new ApiErrorException(ApiError.BadRequest($"order is '{Shown(text)}'; it must be asc or desc.", "order", "invalid_value")),
    };

    private static string Shown(string text) => text.Length <= 40 ? text : $"{text[..40]}…";
}

/// <summary>OpenAI's list. The three fields after the data are always there: some clients read them unasked.</summary>
public sealed record ListObject<T>
{
    public string Object { get; init; } = "list";

    public required IReadOnlyList<T> Data { get; init; }

    /// <summary>Id of the first object, null in an empty list.</summary>
    public string? FirstId { get; init; }

    /// <summary>Id of the last object: <c>after</c> of the next page.</summary>
    public string? LastId { get; init; }

    /// <summary>Whether more follow.</summary>
    public bool HasMore { get; init; }
}

public static class ListObject
{
    public static ListObject<T> Of<T>(IReadOnlyList<T> data, Func<T, string> id, bool hasMore) => new()
    {
        Data = data,
        FirstId = data.Count > 0 ? id(data[0]) : null,
        LastId = data.Count > 0 ? id(data[^1]) : null,
        HasMore = hasMore,
    };
}

/// <summary>What is left of an object that was deleted.</summary>
public sealed record DeletedObject(string Id, string Object)
{
    public bool Deleted { get; init; } = true;
}
