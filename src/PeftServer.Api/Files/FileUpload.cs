using System.Text;
using Microsoft.AspNetCore.WebUtilities;
using Microsoft.Net.Http.Headers;
using PeftServer.Core.Http;
using PeftServer.Core.Storage;

namespace PeftServer.Api.Files;

/// <summary>A file that came as multipart/form-data: in the store already, not yet checked.</summary>
internal sealed record FileUpload(string Filename, string Purpose, Blob Blob)
{
    private const int MaxFieldBytes = 1024;

    private static readonly string[] Known = ["file", "purpose", "expires_after[anchor]", "expires_after[seconds]"];

    /// <summary>
    /// Streams the file part into <paramref name="store"/>, whatever the order of the fields. Throws
    /// <see cref="ApiErrorException"/> for what is no such form, and <see cref="ArtifactTooLargeException"/>.
    /// </summary>
    public static async Task<FileUpload> ReadAsync(HttpRequest request, IArtifactStore store, long maxBytes, CancellationToken cancellationToken)
    {
        var reader = new MultipartReader(Boundary(request), request.Body);
        string? filename = null, purpose = null;
        Blob? blob = null;
        try
        {
            while (await reader.ReadNextSectionAsync(cancellationToken) is { } section)
            {
                switch (NameOf(section))
                {
                    case "file" when blob is null:
                        filename = FilenameOf(section);
                        blob = await store.PutAsync(section.Body, maxBytes, cancellationToken);
                        break;
                    case "purpose" when purpose is null:
                        purpose = await ReadTextAsync(section, cancellationToken);
                        break;
                    case "file" or "purpose":
                        throw Refuse($"The form has the field '{NameOf(section)}' twice.", NameOf(section));
                    case { } name when name.StartsWith("expires_after", StringComparison.Ordinal):
                        throw Refuse(
                            $"'{name}' is not supported by this server yet: files stay until they are deleted. Leave it out.",
                            "expires_after");
                    case { } name:
                        throw Refuse($"Unknown field '{Shown(name)}'.{NearestName.Hint(name, Known)}", Shown(name), "unknown_parameter");
                    default:
                        throw Refuse("A part of the form has no name.");
                }
            }
        }
        catch (Exception e) when (e is IOException and not (ArtifactTooLargeException or BadHttpRequestException) or InvalidDataException)
        {
            throw Refuse($"The form cannot be read: {e.Message}");
        }

        return new FileUpload(
            filename ?? throw Missing("file", "Add the file as a part named 'file' with a filename."),
            purpose ?? throw Missing("purpose", "Add purpose=fine-tune."),
            blob!);
    }

    private static string Boundary(HttpRequest request)
    {
        if (!MediaTypeHeaderValue.TryParse(request.ContentType, out var type) || type.MediaType != "multipart/form-data")
        {
            throw new ApiErrorException(new ApiError
            {
                StatusCode = StatusCodes.Status415UnsupportedMediaType,
                Message = "Send the file as multipart/form-data, with the fields file and purpose.",
                Code = "unsupported_media_type",
            });
        }

        var boundary = HeaderUtilities.RemoveQuotes(type.Boundary).ToString();
        return boundary.Length is > 0 and <= 128
            ? boundary
            : throw Refuse("The Content-Type has no boundary, or one of more than 128 characters. Let the HTTP client set that header.");
    }

    private static string? NameOf(MultipartSection section) => section.GetContentDispositionHeader()?.Name.Value?.Trim('"');

    private static string FilenameOf(MultipartSection section)
    {
        var disposition = section.GetContentDispositionHeader()!;
        var name = disposition.FileNameStar.HasValue ? disposition.FileNameStar : HeaderUtilities.RemoveQuotes(disposition.FileName);
        var last = Core.ForeignText.Clean(name.Value, 1024).Split('/', '\\')[^1]; // some clients send their whole path
        return last.Length is > 0 and <= 255
            ? last
            : throw Refuse("The part 'file' needs a filename of 1 to 255 characters in its Content-Disposition.", "file");
    }

    private static async Task<string> ReadTextAsync(MultipartSection section, CancellationToken cancellationToken)
    {
        var buffer = new byte[MaxFieldBytes + 1];
        var length = await section.Body.ReadAtLeastAsync(buffer, buffer.Length, throwOnEndOfStream: false, cancellationToken);
        return length <= MaxFieldBytes
            ? Encoding.UTF8.GetString(buffer, 0, length)
            : throw Refuse($"The field '{NameOf(section)}' is longer than {MaxFieldBytes} bytes.", NameOf(section));
    }

    private static string Shown(string name) => Core.ForeignText.Clean(name, 100);

    private static ApiErrorException Missing(string field, string remedy) =>
        Refuse($"The form lacks the field '{field}'. {remedy}", field, "missing_required_parameter");

    private static ApiErrorException Refuse(string message, string? param = null, string? code = null) =>
        new(ApiError.BadRequest(message, param, code));
}
