using System.IO.Compression;
using Microsoft.AspNetCore.Http.Features;
using PeftServer.Core.Http;
using PeftServer.Core.Storage;

namespace PeftServer.Api.Models;

/// <summary>An adapter's files as a zip, written while it is sent. The same adapter gives the same bytes.</summary>
internal sealed class AdapterArchive : IResult
{
    private static readonly DateTimeOffset ZipEpoch = new(1980, 1, 1, 0, 0, 0, TimeSpan.Zero); // the files know no time
    private readonly AdapterManifest _adapter;
    private readonly IArtifactStore _store;

    private AdapterArchive(AdapterManifest adapter, IArtifactStore store) => (_adapter, _store) = (adapter, store);

    /// <summary>Looks first whether every file is there: once the zip is under way, no error can be said.</summary>
    public static async Task<IResult> OpenAsync(AdapterManifest adapter, IArtifactStore store, CancellationToken cancellationToken)
    {
        foreach (var file in adapter.Files)
        {
            if (!await store.ExistsAsync(file.Sha256, cancellationToken))
            {
                return new ApiError
                {
                    StatusCode = StatusCodes.Status500InternalServerError,
                    Type = "server_error",
                    Code = "artifact_missing",
                    Message = $"The artifact store has lost '{file.Path}' of this adapter. Was its folder moved or emptied?",
                };
            }
        }

        return new AdapterArchive(adapter, store);
    }

    public async Task ExecuteAsync(HttpContext httpContext)
    {
        var cancellationToken = httpContext.RequestAborted;
        var response = httpContext.Response;
        response.ContentType = "application/zip";
        response.Headers.ETag = $"\"{_adapter.Digest}\"";
        response.Headers.ContentDisposition = $"attachment; filename=\"adapter-{_adapter.Digest[..12]}.zip\"";
        // An entry ends with 16 bytes that .NET 10 writes synchronously, whichever way it is disposed of.
        httpContext.Features.GetRequiredFeature<IHttpBodyControlFeature>().AllowSynchronousIO = true;
        await using var zip = await ZipArchive.CreateAsync(
            response.Body, ZipArchiveMode.Create, leaveOpen: true, entryNameEncoding: null, cancellationToken);
        foreach (var file in _adapter.Files)
        {
            var entry = zip.CreateEntry(file.Path, CompressionLevel.NoCompression); // weights do not compress
            entry.LastWriteTime = ZipEpoch;
            await using var to = await entry.OpenAsync(cancellationToken);
            await using var from = await _store.OpenAsync(file.Sha256, cancellationToken);
            await from.CopyToAsync(to, cancellationToken);
        }
    }
}
