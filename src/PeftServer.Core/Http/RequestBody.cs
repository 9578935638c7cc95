using System.Text.Json;

namespace PeftServer.Core.Http;

/// <summary>Reads a JSON body whole, up to a limit.</summary>
public static class RequestBody
{
    /// <summary>Throws <see cref="ApiErrorException"/> when it is no JSON by its type, or longer than <paramref name="maxBytes"/>.</summary>
    public static async Task<MemoryStream> ReadJsonAsync(HttpRequest request, int maxBytes, CancellationToken cancellationToken)
    {
        // A form on a web page cannot send this type: one more wall against foreign pages.
        if (!request.HasJsonContentType())
        {
            throw new ApiErrorException(new ApiError
            {
                StatusCode = StatusCodes.Status415UnsupportedMediaType,
                Message = "Send the body as JSON, with 'Content-Type: application/json'.",
                Code = "unsupported_media_type",
            });
        }

        if (request.Headers.ContentEncoding.ToString() is { Length: > 0 } encoding && encoding != "identity")
        {
            throw new ApiErrorException(new ApiError
            {
                StatusCode = StatusCodes.Status415UnsupportedMediaType,
                Message = $"The body is packed ('Content-Encoding: {ForeignText.Clean(encoding, 40)}'). Send it as it is.",
                Code = "unsupported_content_encoding",
            });
        }

        if (request.ContentLength > maxBytes)
        {
            throw TooLarge(maxBytes);
        }

        var body = new MemoryStream((int)(request.ContentLength ?? 0));
        var buffer = new byte[16 << 10];
        while (await request.Body.ReadAsync(buffer, cancellationToken) is > 0 and var read)
        {
            if (body.Length + read > maxBytes)
            {
                throw TooLarge(maxBytes);
            }

            body.Write(buffer, 0, read);
        }

        return body;
    }

    /// <summary>The answer to a body that is no JSON.</summary>
    public static ApiErrorException NoJson(JsonException e) => new(ApiError.BadRequest(
        (e.LineNumber is { } line ? $"The body is not valid JSON at line {line + 1}, byte {e.BytePositionInLine + 1}: " : "The body is not valid JSON: ") + JsonShape.WithoutPosition(e.Message),
        code: "invalid_json"));

    private static ApiErrorException TooLarge(int maxBytes) => new(ApiError.TooLarge(
        $"The request body is larger than {maxBytes} bytes, the most that this server takes. Send less, or raise Api:MaxRequestBytes."));
}
