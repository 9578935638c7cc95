using Microsoft.AspNetCore.Diagnostics;
using Microsoft.AspNetCore.Http.Features;
using PeftServer.Core.Data;

namespace PeftServer.Core.Http;

/// <summary>Gives everything that ends badly OpenAI's error shape: exceptions, unknown paths, wrong verbs.</summary>
public static class ErrorResponses
{
    extension(WebApplication app)
    {
        public void UseApiErrors()
        {
            app.UseExceptionHandler(new ExceptionHandlerOptions
            {
                ExceptionHandler = ExplainExceptionAsync,
                SuppressDiagnosticsCallback = handled => handled.Exception is ApiErrorException or BadHttpRequestException,
            });
            app.UseStatusCodePages(context => Explain(context.HttpContext).ExecuteAsync(context.HttpContext));
        }
    }

    private static Task ExplainExceptionAsync(HttpContext context) =>
        Explain(context, context.Features.GetRequiredFeature<IExceptionHandlerFeature>().Error).ExecuteAsync(context);

    private static ApiError Explain(HttpContext context, Exception exception) => exception switch
    {
        ApiErrorException known => known.Error,
        BadHttpRequestException { StatusCode: StatusCodes.Status413PayloadTooLarge } =>
            ApiError.TooLarge("The request body is larger than this endpoint takes."),
        BadHttpRequestException unreadable => new()
        {
            StatusCode = unreadable.StatusCode,
            Message = $"The request cannot be read: {unreadable.Message}",
        },
        _ when DatabaseFaults.IsPassing(exception) => new()
        {
            StatusCode = StatusCodes.Status503ServiceUnavailable,
            Type = "service_unavailable",
            Code = "database_unavailable",
            RetryAfterSeconds = 2,
            Message = "The database does not answer. Try again.",
        },
        _ => new()
        {
            StatusCode = StatusCodes.Status500InternalServerError,
            Type = "server_error",
            Message = $"The server had an error while it worked on this request. Look for request {context.TraceIdentifier} in its log.",
        },
    };

    private static ApiError Explain(HttpContext context)
    {
        var request = context.Request;
        var status = context.Response.StatusCode;
        return status switch
        {
            StatusCodes.Status404NotFound => ApiError.NotFound(
                $"Unknown request URL: {request.Method} {request.Path}. The paths of this server are listed at /swagger.", code: "unknown_url"),
            StatusCodes.Status405MethodNotAllowed => new()
            {
                StatusCode = status,
                Message = $"{request.Path} does not take {request.Method}. It takes {context.Response.Headers.Allow}.",
                Code = "method_not_supported",
            },
            StatusCodes.Status415UnsupportedMediaType => new()
            {
                StatusCode = status,
                Message = $"{request.Path} does not take the content type '{request.ContentType}'.",
                Code = "unsupported_media_type",
            },
            >= 500 => new() { StatusCode = status, Type = "server_error", Message = "The server could not answer this request." },
            _ => new() { StatusCode = status, Message = "The request was refused." },
        };
    }
}
