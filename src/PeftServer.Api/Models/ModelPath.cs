using Microsoft.AspNetCore.Http.Features;

namespace PeftServer.Api.Models;

/// <summary>
/// The model's id at the end of a path. Ids hold '/' and ':'; clients escape the first as %2F, which the server's own
/// decoding leaves alone. So the id is cut from the path as it was sent, and decoded once: %252F stays %2F.
/// </summary>
internal static class ModelPath
{
    public const string Prefix = "/v1/models/";

    public static string IdOf(HttpContext context)
    {
        var raw = context.Features.GetRequiredFeature<IHttpRequestFeature>().RawTarget.Split('?', 2)[0];
        return raw.StartsWith(Prefix, StringComparison.OrdinalIgnoreCase)
            ? Uri.UnescapeDataString(raw[Prefix.Length..]).TrimEnd('/')
            : context.Request.Path.Value!.Length > Prefix.Length ? context.Request.Path.Value[Prefix.Length..].TrimEnd('/') // the prefix itself was written with escapes
            : ""; // no model is named
    }
}
