using System.Security.Cryptography;
using System.Text;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Options;
using PeftServer.Core.Http;
using PeftServer.Core.Inference;

namespace PeftServer.Inference;

/// <summary>Lets in the api alone: everything but the health probe needs the internal key, and without one nothing is served.</summary>
internal static class InternalKey
{
    extension(WebApplication app)
    {
        public void UseInternalKey()
        {
            var key = app.Services.GetRequiredService<IOptions<InferenceOptions>>().Value.InternalKey;
            if (string.IsNullOrEmpty(key))
            {
                throw new InvalidOperationException("Inference:InternalKey is not set. Set the same value for the api and for inference.");
            }

            var expected = Encoding.UTF8.GetBytes($"Bearer {key}");
            app.Use((context, next) => context.Request.Path == "/healthz" || Matches(context.Request, expected)
                ? next(context)
                : new ApiError
                {
                    StatusCode = StatusCodes.Status401Unauthorized,
                    Type = "authentication_error",
                    Code = "invalid_api_key",
                    Message = "Inference takes requests from the api alone.",
                }.ExecuteAsync(context));
        }
    }

    private static bool Matches(HttpRequest request, byte[] expected) =>
        CryptographicOperations.FixedTimeEquals(Encoding.UTF8.GetBytes(request.Headers.Authorization.ToString()), expected);
}
