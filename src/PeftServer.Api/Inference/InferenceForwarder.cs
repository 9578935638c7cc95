using System.Net;
using System.Net.Http.Headers;
using Microsoft.Extensions.Options;
using PeftServer.Core.Http;
using PeftServer.Core.Inference;
using Yarp.ReverseProxy.Forwarder;

namespace PeftServer.Api.Inference;

/// <summary>
/// Passes a request on to an inference host and the answer back, byte by byte as they come. A client that leaves cancels.
/// A host that does not take the connection has done nothing yet: the next one is asked.
/// </summary>
internal sealed class InferenceForwarder(IHttpForwarder forwarder, IOptions<InferenceOptions> inference, IOptions<ApiOptions> api) : IDisposable
{
    private readonly InternalHeaders _headers = new(inference.Value.InternalKey);

    private readonly ForwarderRequestConfig _config = new()
    {
        ActivityTimeout = TimeSpan.FromSeconds(api.Value.InferenceTimeoutSeconds),
        AllowResponseBuffering = false,
    };

    private readonly HttpMessageInvoker _http = new(new SocketsHttpHandler
    {
        UseProxy = false,
        UseCookies = false,
        AllowAutoRedirect = false,
        AutomaticDecompression = DecompressionMethods.None,
        ConnectTimeout = TimeSpan.FromSeconds(3),
        PooledConnectionIdleTimeout = TimeSpan.FromSeconds(30),
    });

    public void Dispose() => _http.Dispose();

    /// <summary>Null when none of <paramref name="hosts"/> took the request; the answer is untouched then.</summary>
    public async Task<IResult?> ForwardAsync(HttpContext context, MemoryStream body, IReadOnlyList<InferenceHost> hosts)
    {
        foreach (var host in hosts)
        {
            body.Position = 0;
            context.Request.Body = body;
            var error = await forwarder.SendAsync(context, host.Url, _http, _config, _headers);
            if (error is ForwarderError.None || context.Response.HasStarted || context.RequestAborted.IsCancellationRequested)
            {
                return Results.Empty; // the answer is the host's, or nobody is there to read one
            }

            context.Response.Clear();
            if (!NeverReached(context))
            {
                return Failed(error);
            }
        }

        return null;
    }

    private static bool NeverReached(HttpContext context) =>
        context.Features.Get<IForwarderErrorFeature>()?.Exception is HttpRequestException { HttpRequestError: HttpRequestError.ConnectionError }
            or HttpRequestException { HttpRequestError: HttpRequestError.NameResolutionError };

    private static ApiError Failed(ForwarderError error) => error is ForwarderError.RequestTimedOut
        ? new()
        {
            StatusCode = StatusCodes.Status504GatewayTimeout,
            Type = "server_error",
            Code = "inference_timeout",
            Message = "The inference host did not answer in time. Ask for fewer tokens, or raise Api:InferenceTimeoutSeconds.",
        }
        : new()
        {
            StatusCode = StatusCodes.Status503ServiceUnavailable,
            Type = "service_unavailable",
            Code = "inference_host_lost",
            RetryAfterSeconds = 1,
            Message = "The inference host broke off before it answered. Try again.",
        };

    /// <summary>What is the client's stays here: its key and cookies. The host takes the internal key only.</summary>
    private sealed class InternalHeaders(string? internalKey) : HttpTransformer
    {
        public override async ValueTask TransformRequestAsync(
            HttpContext httpContext, HttpRequestMessage proxyRequest, string destinationPrefix, CancellationToken cancellationToken)
        {
            await base.TransformRequestAsync(httpContext, proxyRequest, destinationPrefix, cancellationToken);
            proxyRequest.Headers.Host = null; // the host's own name
            proxyRequest.Headers.Remove("Cookie");
            proxyRequest.Headers.Remove("Origin");
            proxyRequest.Headers.Remove("x-request-id");
            proxyRequest.Headers.Add("x-request-id", httpContext.TraceIdentifier);
            proxyRequest.Headers.Authorization = string.IsNullOrEmpty(internalKey) ? null : new AuthenticationHeaderValue("Bearer", internalKey);
        }
    }
}
