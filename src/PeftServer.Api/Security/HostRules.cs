using System.Net;
using PeftServer.Core.Http;

namespace PeftServer.Api.Security;

/// <summary>
/// Keeps web pages from driving a server on localhost: a page that rebinds its name to 127.0.0.1 gives its own name in
/// Host; one that posts across sites gives its own in Origin.
/// </summary>
internal sealed record HostRules(string[] AllowedHosts, string[] CorsOrigins, bool AnyHost)
{
    public ApiError? Refusal(HttpRequest request)
    {
        if (!AllowsHost(request.Host.Host))
        {
            return Forbidden(
                $"This server does not answer to the name '{request.Host.Host}'. Add it to Api:AllowedHosts, or use localhost.",
                "host_not_allowed");
        }

        var origin = request.Headers.Origin.ToString();
        return origin.Length == 0 || IsOwn(origin, request) || CorsOrigins.Contains(origin, StringComparer.OrdinalIgnoreCase)
            ? null
            : Forbidden($"Pages of '{origin}' may not call this server. Add that origin to Api:CorsOrigins.", "origin_not_allowed");
    }

    private bool AllowsHost(string host) =>
        AllowedHosts.Length > 0
            ? AllowedHosts.Contains(host, StringComparer.OrdinalIgnoreCase)
            : AnyHost || host.Equals("localhost", StringComparison.OrdinalIgnoreCase)
                || (IPAddress.TryParse(host.Trim('[', ']'), out var address) && IPAddress.IsLoopback(address));

    // The page came from this server: Swagger UI, the dashboard. Behind a TLS proxy its scheme is https.
    private static bool IsOwn(string origin, HttpRequest request) =>
        Uri.TryCreate(origin, UriKind.Absolute, out var page) && page.Scheme is "http" or "https" &&
        page.Authority.Equals(new UriBuilder(page.Scheme, request.Host.Host, request.Host.Port ?? -1).Uri.Authority, StringComparison.OrdinalIgnoreCase);

    private static ApiError Forbidden(string message, string code) =>
        new() { StatusCode = StatusCodes.Status403Forbidden, Message = message, Code = code };
}

internal static class HostGuard
{
    extension(WebApplication app)
    {
        /// <summary>Refuses foreign hosts and origins, and what the database could not store as text.</summary>
        public void UseHostGuard() => app.Use((context, next) =>
        {
            if (app.Services.GetRequiredService<HostRules>().Refusal(context.Request) is { } refusal)
            {
                return refusal.ExecuteAsync(context);
            }

            var holdsNull = context.Request.QueryString.Value?.Contains("%00", StringComparison.Ordinal) is true
                || context.Request.Path.Value?.Contains('\0', StringComparison.Ordinal) is true;
            return holdsNull
                ? ApiError.BadRequest("The URL holds the character U+0000, which no name here has.").ExecuteAsync(context)
                : next(context);
        });
    }
}
