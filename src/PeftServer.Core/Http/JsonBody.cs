using System.Reflection;
using System.Text.Json;
using Microsoft.AspNetCore.Http.Metadata;
using PeftServer.Engine;

namespace PeftServer.Core.Http;

/// <summary>
/// A JSON body read strictly: what is no JSON, has a wrong type, or a field nobody knows is a 400 that names the place
/// and the remedy, every fault in one answer.
/// </summary>
public sealed class JsonBody<T> : IBindableFromHttpContext<JsonBody<T>>, IEndpointParameterMetadataProvider
    where T : class
{
    private static readonly JsonDocumentOptions Strict = new() { AllowDuplicateProperties = false, MaxDepth = 64 };

    private JsonBody(T value, byte[] utf8) => (Value, Utf8) = (value, utf8);

    public T Value { get; }

    /// <summary>The bytes as they came.</summary>
    public ReadOnlyMemory<byte> Utf8 { get; }

    public static async ValueTask<JsonBody<T>?> BindAsync(HttpContext context, ParameterInfo parameter)
    {
        if (!context.Request.HasJsonContentType())
        {
            throw new ApiErrorException(new ApiError
            {
                StatusCode = StatusCodes.Status415UnsupportedMediaType,
                Message = "Send the body as JSON, with 'Content-Type: application/json'.",
                Code = "unsupported_media_type",
            });
        }

        using var buffer = new MemoryStream();
        await context.Request.Body.CopyToAsync(buffer, context.RequestAborted);
        var utf8 = buffer.ToArray();
        return new JsonBody<T>(Parse(utf8), utf8);
    }

    public static void PopulateMetadata(ParameterInfo parameter, EndpointBuilder builder) =>
        builder.Metadata.Add(new AcceptsMetadata(["application/json"], typeof(T)));

    /// <summary>Throws <see cref="ApiErrorException"/> with every fault of the document.</summary>
    internal static T Parse(ReadOnlyMemory<byte> utf8)
    {
        try
        {
            using var document = JsonDocument.Parse(utf8, Strict);
            var faults = JsonShape.Faults(document.RootElement, PeftJson.Options.GetTypeInfo(typeof(T)));
            return faults.Count == 0
                ? document.RootElement.Deserialize<T>(PeftJson.Options)!
                : throw new ApiErrorException(ApiError.From(faults));
        }
        catch (JsonException e)
        {
            throw new ApiErrorException(ApiError.BadRequest(
                $"The body is not valid JSON at line {e.LineNumber + 1}, byte {e.BytePositionInLine + 1}: {JsonShape.WithoutPosition(e.Message)}",
                code: "invalid_json"));
        }
    }
}
