using System.Text.Json.Serialization;
using PeftServer.Engine;

namespace PeftServer.Core.Http;

/// <summary>
/// OpenAI's error object as a result: <c>{"error":{"message","type","param","code"}}</c>, the four keys always there.
/// More faults than one go into <c>error.details</c>, the first 100 of <c>error.total</c>.
/// </summary>
public sealed record ApiError : IResult
{
    /// <summary>Faults that one answer lists; the rest is counted.</summary>
    public const int MaxDetails = 100;

    /// <summary>HTTP status of the answer.</summary>
    [JsonIgnore]
    public int StatusCode { get; init; } = StatusCodes.Status400BadRequest;

    /// <summary>Seconds after which a client may try again; sent as Retry-After.</summary>
    [JsonIgnore]
    public int? RetryAfterSeconds { get; init; }

    /// <summary>What is wrong and what to do about it.</summary>
    public required string Message { get; init; }

    /// <summary>invalid_request_error, authentication_error, conflict_error, server_error or service_unavailable.</summary>
    public string Type { get; init; } = "invalid_request_error";

    /// <summary>The field at fault, as a path: <c>peft.lora_alpha</c>.</summary>
    public string? Param { get; init; }

    /// <summary>A word for programs: <c>model_not_found</c>.</summary>
    public string? Code { get; init; }

    /// <summary>Every fault, where there are several.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public IReadOnlyList<ErrorDetail>? Details { get; init; }

    /// <summary>How many faults there are in all.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public int? Total { get; init; }

    public static ApiError BadRequest(string message, string? param = null, string? code = null) =>
        new() { StatusCode = StatusCodes.Status400BadRequest, Message = message, Param = param, Code = code };

    public static ApiError NotFound(string message, string? param = null, string? code = null) =>
        new() { StatusCode = StatusCodes.Status404NotFound, Message = message, Param = param, Code = code };

    /// <summary>A conflict that trying again does not cure; clients are told not to.</summary>
    public static ApiError Conflict(string message, string? param = null, string? code = null) =>
        new() { StatusCode = StatusCodes.Status409Conflict, Message = message, Type = "conflict_error", Param = param, Code = code };

    public static ApiError TooLarge(string message, string? param = null) =>
        new() { StatusCode = StatusCodes.Status413PayloadTooLarge, Message = message, Param = param, Code = "request_too_large" };

    /// <summary>One answer for all <paramref name="faults"/>: the first speaks, the others are in the details.</summary>
    public static ApiError From(IReadOnlyList<ErrorDetail> faults, int? total = null) => new()
    {
        StatusCode = StatusCodes.Status400BadRequest,
        Message = faults[0].Message,
        Param = faults[0].Param,
        Code = faults[0].Code,
        Details = faults.Count > 1 ? [.. faults.Take(MaxDetails)] : null,
        Total = faults.Count > 1 ? total ?? faults.Count : null,
    };

    public Task ExecuteAsync(HttpContext httpContext)
    {
        var response = httpContext.Response;
        response.StatusCode = StatusCode;
        response.Headers["x-should-retry"] = StatusCode is StatusCodes.Status409Conflict ? "false" : default(string);
        response.Headers.RetryAfter = RetryAfterSeconds?.ToString(System.Globalization.CultureInfo.InvariantCulture);
        return response.WriteAsJsonAsync(new ErrorResponse(this), PeftJson.Options, httpContext.RequestAborted);
    }
}

/// <summary>The body of every answer that is an error.</summary>
public sealed record ErrorResponse(ApiError Error);

/// <summary>One fault of several; <c>line</c> is the line of an uploaded file.</summary>
public sealed record ErrorDetail(
    string Message,
    string? Param = null,
    string? Code = null,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] long? Line = null,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] string? Path = null);

/// <summary>Ends a request with <see cref="Error"/>, from where no result can be returned.</summary>
public sealed class ApiErrorException(ApiError error) : Exception(error.Message)
{
    public ApiError Error { get; } = error;
}
