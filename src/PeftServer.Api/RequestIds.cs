using System.Globalization;

namespace PeftServer.Api;

/// <summary>Gives every request an id that its answer, its log lines and its error carry, and OpenAI's other headers.</summary>
internal static class RequestIds
{
    extension(WebApplication app)
    {
        public void UseRequestIds(TimeProvider clock) => app.Use(async (context, next) =>
        {
            var started = clock.GetTimestamp();
            context.TraceIdentifier = $"req_{Guid.NewGuid():N}";
            context.Response.OnStarting(() =>
            {
                var headers = context.Response.Headers;
                headers["x-request-id"] = context.TraceIdentifier;
                headers["openai-version"] = "2020-10-01";
                headers["openai-processing-ms"] = clock.GetElapsedTime(started).TotalMilliseconds.ToString("F0", CultureInfo.InvariantCulture);
                return Task.CompletedTask;
            });
            using (app.Logger.BeginScope(Scope(context.TraceIdentifier)))
            {
                await next(context);
            }
        });
    }

    // The inner of two scopes wins: the server's own id would stand in the log otherwise.
    private static Dictionary<string, object> Scope(string id) => new() { ["RequestId"] = id };
}
