using System.Globalization;
using System.Text.Json;
using Microsoft.AspNetCore.Http.Features;
using Microsoft.Extensions.Options;
using PeftServer.Core;
using PeftServer.Core.Http;
using PeftServer.Core.Jobs;
using PeftServer.Engine;

namespace PeftServer.Api.FineTuning;

/// <summary>
/// A job's events: OpenAI's list, or our stream. In the stream the SSE id is the event's number in its job, so a client that
/// comes back with <c>Last-Event-ID</c> misses nothing, whatever was restarted meanwhile.
/// </summary>
internal static class JobEvents
{
    public static async Task<IResult> GetAsync(
        string id, PageQuery page, HttpRequest request, JobStore jobs, JobFeed feed, IOptions<ApiOptions> options,
        IHostApplicationLifetime lifetime, TimeProvider clock, CancellationToken cancellationToken)
    {
        if (await jobs.FindAsync(Tenancy.DefaultProject, id, cancellationToken) is not { } job)
        {
            return JobEndpoints.NoJob(id);
        }

        if (!request.GetTypedHeaders().Accept.Any(type => type.MediaType == "text/event-stream"))
        {
            return await jobs.ListEventsAsync(id, page.After, page.LimitOr(usual: 20, most: 1000), cancellationToken) is { } found
                ? TypedResults.Ok(ListObject.Of<EventObject>([.. found.Items.Select(EventObject.From)], row => row.Id, found.HasMore))
                : page.NoSuch("event");
        }

        if (!TryReadLastEventId(request, out var last))
        {
            return ApiError.BadRequest(
                "Last-Event-ID must be the number of an event, as the stream gives it in 'id'.",
                "Last-Event-ID", "invalid_value");
        }

        // 204 is what tells a browser's EventSource not to come back.
        return job.State.IsFinal && last >= job.LastEventNumber
            ? TypedResults.NoContent()
            : new EventStream(
                stopping => feed.FollowAsync(id, last, stopping), TimeSpan.FromSeconds(options.Value.KeepAliveSeconds), lifetime, clock);
    }

    private static bool TryReadLastEventId(HttpRequest request, out int number)
    {
        number = 0;
        return request.Headers["Last-Event-ID"] is not [{ Length: > 0 } text]
            || int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out number);
    }

    /// <summary>Writes events as they come, and a comment where none comes for a while; ends with the job, the client or the server.</summary>
    private sealed class EventStream(
        Func<CancellationToken, IAsyncEnumerable<JobEvent>> follow, TimeSpan keepAlive, IHostApplicationLifetime lifetime, TimeProvider clock)
        : IResult
    {
        public async Task ExecuteAsync(HttpContext httpContext)
        {
            var response = httpContext.Response;
            response.ContentType = "text/event-stream";
            response.Headers.CacheControl = "no-cache";
            response.Headers["X-Accel-Buffering"] = "no"; // nginx would hold the events back
            httpContext.Features.GetRequiredFeature<IHttpResponseBodyFeature>().DisableBuffering();

            using var stopping = CancellationTokenSource.CreateLinkedTokenSource(httpContext.RequestAborted, lifetime.ApplicationStopping);
            try
            {
                await WriteAsync(response, stopping);
            }
            catch (OperationCanceledException) when (stopping.IsCancellationRequested)
            {
                // The client left, or the server stops; the client comes back with Last-Event-ID.
            }
        }

        private async Task WriteAsync(HttpResponse response, CancellationTokenSource stopping)
        {
            await response.StartAsync(stopping.Token);
            await using var events = follow(stopping.Token).GetAsyncEnumerator(stopping.Token);
            var next = events.MoveNextAsync().AsTask();
            try
            {
                while (await ArrivesAsync(next, stopping.Token) is var arrived && (!arrived || await next))
                {
                    await response.WriteAsync(arrived ? Text(events.Current) : ": keep-alive\n\n", stopping.Token);
                    await response.Body.FlushAsync(stopping.Token);
                    next = arrived ? events.MoveNextAsync().AsTask() : next;
                }
            }
            finally
            {
                await stopping.CancelAsync(); // an iterator can be disposed of only when it does not move
                await ((Task)next).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            }
        }

        private static string Text(JobEvent row) =>
            $"id: {row.Number}\ndata: {JsonSerializer.Serialize(EventObject.From(row), PeftJson.Options)}\n\n";

        private async Task<bool> ArrivesAsync(Task next, CancellationToken cancellationToken)
        {
            try
            {
                await next.WaitAsync(keepAlive, clock, cancellationToken);
                return true;
            }
            catch (TimeoutException) when (!next.IsCompleted)
            {
                return false;
            }
        }
    }
}
