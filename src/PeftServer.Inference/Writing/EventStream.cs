using System.Text.Json;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using PeftServer.Core.Http;
using PeftServer.Engine;

namespace PeftServer.Inference.Writing;

/// <summary>An answer as server-sent events, ended by <c>[DONE]</c> as OpenAI does.</summary>
internal sealed partial class EventStream : IResult
{
    private readonly IAsyncEnumerator<object> _events;
    private bool _hasNext;

    private EventStream(IAsyncEnumerator<object> events, bool hasNext) => (_events, _hasNext) = (events, hasNext);

    /// <summary>Waits for the first event: what fails before it is an answer of its own, with a status that says so.</summary>
    public static async Task<IResult> BeginAsync(IAsyncEnumerable<object> events, CancellationToken cancellationToken)
    {
        var enumerator = events.GetAsyncEnumerator(cancellationToken);
        try
        {
            return new EventStream(enumerator, await enumerator.MoveNextAsync());
        }
        catch
        {
            await enumerator.DisposeAsync();
            throw;
        }
    }

    public async Task ExecuteAsync(HttpContext httpContext)
    {
        var response = httpContext.Response;
        response.ContentType = "text/event-stream; charset=utf-8";
        response.Headers.CacheControl = "no-cache";
        await using (_events)
        {
            try
            {
                for (; _hasNext; _hasNext = await _events.MoveNextAsync())
                {
                    await SendAsync(JsonSerializer.Serialize(_events.Current, PeftJson.Options));
                }
            }
            catch (Exception e) when (e is not OperationCanceledException)
            {
                // The status is out; clients look for an error among the events.
                LogBrokenOff(httpContext.RequestServices.GetRequiredService<ILogger<EventStream>>(), e);
                var error = new ApiError
                {
                    Type = "server_error",
                    Code = "broken_off",
                    Message = $"The answer broke off. Look for request {httpContext.TraceIdentifier} in the server's log.",
                };
                await SendAsync(JsonSerializer.Serialize(new ErrorResponse(error), PeftJson.Options));
            }
        }

        await SendAsync("[DONE]");

        async Task SendAsync(string data)
        {
            await response.WriteAsync($"data: {data}\n\n", httpContext.RequestAborted);
            await response.Body.FlushAsync(httpContext.RequestAborted);
        }
    }

    [LoggerMessage(Level = LogLevel.Error, Message = "A streamed answer broke off.")]
    private static partial void LogBrokenOff(ILogger logger, Exception exception);
}
