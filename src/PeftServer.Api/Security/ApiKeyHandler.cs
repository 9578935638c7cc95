using System.Net.Http.Headers;
using System.Security.Claims;
using System.Security.Cryptography;
using System.Text;
using System.Text.Encodings.Web;
using Microsoft.AspNetCore.Authentication;
using Microsoft.AspNetCore.Authorization;
using Microsoft.Extensions.Options;
using PeftServer.Core.Hosting;
using PeftServer.Core.Http;

namespace PeftServer.Api.Security;

/// <summary>
/// Knows a client by <c>Authorization: Bearer KEY</c>. On the admin listener a browser may ask its user instead: any
/// name, the key as password. Without a key in the settings every client is let in: then the server is on loopback.
/// </summary>
internal sealed class ApiKeyHandler(
    IOptionsMonitor<AuthenticationSchemeOptions> options, ILoggerFactory logger, UrlEncoder encoder, IOptions<AuthOptions> auth)
    : AuthenticationHandler<AuthenticationSchemeOptions>(options, logger, encoder)
{
    public const string SchemeName = "ApiKey";

    protected override Task<AuthenticateResult> HandleAuthenticateAsync() => Task.FromResult(Authenticate());

    protected override Task HandleChallengeAsync(AuthenticationProperties properties)
    {
        if (Context.IsAdmin)
        {
            Response.Headers.WWWAuthenticate = "Basic realm=\"PeftServer\"";
        }

        var given = Request.Headers.Authorization.Count > 0;
        return new ApiError
        {
            StatusCode = StatusCodes.Status401Unauthorized,
            Message = given
                ? "Incorrect API key provided. Send the value of Auth:ApiKey as 'Authorization: Bearer KEY'."
                : "You didn't provide an API key. Send it as 'Authorization: Bearer KEY'.",
            Code = "invalid_api_key",
        }.ExecuteAsync(Context);
    }

    private AuthenticateResult Authenticate()
    {
        if (string.IsNullOrEmpty(auth.Value.ApiKey))
        {
            return Success("local");
        }

        return GivenKey() switch
        {
            null => AuthenticateResult.NoResult(),
            var given when SameKey(given, auth.Value.ApiKey) => Success("key"),
            _ => AuthenticateResult.Fail("The key is wrong."),
        };
    }

    private string? GivenKey()
    {
        if (!AuthenticationHeaderValue.TryParse(Request.Headers.Authorization, out var header) || header.Parameter is null)
        {
            return null;
        }

        return header.Scheme.ToUpperInvariant() switch
        {
            "BEARER" => header.Parameter,
            "BASIC" when Context.IsAdmin => Password(header.Parameter),
            _ => null,
        };
    }

    private static string? Password(string credentials)
    {
        var utf8 = new byte[credentials.Length];
        return Convert.TryFromBase64String(credentials, utf8, out var length)
            ? Encoding.UTF8.GetString(utf8, 0, length).Split(':', 2).ElementAtOrDefault(1)
            : null;
    }

    // Hashes are of one length, so the time tells nothing of the key's.
    private static bool SameKey(string given, string expected) =>
        CryptographicOperations.FixedTimeEquals(SHA256.HashData(Encoding.UTF8.GetBytes(given)), SHA256.HashData(Encoding.UTF8.GetBytes(expected)));

    private static AuthenticateResult Success(string name) =>
        AuthenticateResult.Success(new(new(new ClaimsIdentity([new Claim(ClaimTypes.Name, name)], SchemeName)), SchemeName));
}

internal static class KeyPolicy
{
    extension(WebApplicationBuilder builder)
    {
        /// <summary>Every endpoint wants the key unless it says AllowAnonymous; so does every path that is none.</summary>
        public void AddKeyPolicy()
        {
            builder.Services
                .AddAuthentication(ApiKeyHandler.SchemeName)
                .AddScheme<AuthenticationSchemeOptions, ApiKeyHandler>(ApiKeyHandler.SchemeName, null);
            builder.Services.AddAuthorizationBuilder()
                .SetFallbackPolicy(new AuthorizationPolicyBuilder().RequireAuthenticatedUser().Build());
        }
    }
}
