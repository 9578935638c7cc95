using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.Extensions.Options;
using PeftServer.Api.Documentation;
using PeftServer.Core;
using PeftServer.Core.Files;
using PeftServer.Core.Http;
using PeftServer.Core.Storage;
using PeftServer.Engine.Data;

namespace PeftServer.Api.Files;

/// <summary><c>/v1/files</c>: data sets come in, are checked and kept.</summary>
internal static class FileEndpoints
{
    extension(WebApplication app)
    {
        public void MapFiles()
        {
            var files = app.MapGroup("/v1/files").WithTags("Files");

            files.MapPost("", UploadAsync).WithName("UploadFile").WithMetadata(new FormWithFile())
                .WithSummary("Upload a data set").ProducesErrors(400, 413, 415);
            files.MapGet("", ListAsync).WithName("ListFiles").WithSummary("List files")
                .WithPaging(usual: 10_000, most: 10_000).WithParameter("purpose", "Only files of this purpose.").WithParameter("order", "asc or desc (by age).");
            files.MapGet("/{id}", GetAsync).WithName("GetFile").WithSummary("Look at a file").ProducesErrors(404);
            files.MapDelete("/{id}", DeleteAsync).WithName("DeleteFile").WithSummary("Delete a file").ProducesErrors(404);
            files.MapGet("/{id}/content", ContentAsync).WithName("GetFileContent").WithSummary("Download a file")
                .Produces(200, contentType: "application/octet-stream").ProducesErrors(404);
        }
    }

    private static async Task<Results<Ok<FileObject>, ApiError>> UploadAsync(
        HttpRequest request, IArtifactStore store, FileStore files, IOptions<StorageOptions> options, CancellationToken cancellationToken)
    {
        FileUpload upload;
        try
        {
            upload = await FileUpload.ReadAsync(request, store, options.Value.MaxFileBytes, cancellationToken);
        }
        catch (ArtifactTooLargeException e)
        {
            return ApiError.TooLarge(
                $"The file is larger than {e.MaxBytes} bytes, the most that this server takes. Split it, or raise Storage:MaxFileBytes.",
                "file");
        }

        if (upload.Purpose is not "fine-tune")
        {
            return ApiError.BadRequest(
                $"purpose '{ForeignText.Clean(upload.Purpose, 40)}' is not supported by this server. Use 'fine-tune'.",
                "purpose", "unsupported_value");
        }

        var check = await CheckAsync(store, upload.Blob, cancellationToken);
        if (check.FaultCount > 0)
        {
            return Refuse(check); // the blob is collected later: the same bytes may belong to another file
        }

        var file = await files.AddAsync(new StoredFile
        {
            Filename = upload.Filename,
            Purpose = upload.Purpose,
            Bytes = upload.Blob.Bytes,
            Sha256 = upload.Blob.Sha256,
            Rows = (int)Math.Min(check.Rows, int.MaxValue),
        }, cancellationToken);
        return TypedResults.Ok(FileObject.From(file));
    }

    private static async Task<Results<Ok<ListObject<FileObject>>, ApiError>> ListAsync(
        PageQuery page, HttpRequest request, FileStore files, CancellationToken cancellationToken)
    {
        var purpose = request.Query["purpose"] is [{ Length: > 0 } wanted] ? wanted : null;
        var limit = page.LimitOr(usual: 10_000, most: 10_000);
        return await files.ListAsync(Tenancy.DefaultProject, purpose, page.After, limit, !page.Ascending, cancellationToken) is { } found
            ? TypedResults.Ok(ListObject.Of<FileObject>([.. found.Items.Select(FileObject.From)], file => file.Id, found.HasMore))
            : page.NoSuch("file");
    }

    private static async Task<Results<Ok<FileObject>, ApiError>> GetAsync(string id, FileStore files, CancellationToken cancellationToken) =>
        await files.FindAsync(Tenancy.DefaultProject, id, cancellationToken) is { } file ? TypedResults.Ok(FileObject.From(file)) : NoFile(id);

    private static async Task<Results<Ok<DeletedObject>, ApiError>> DeleteAsync(string id, FileStore files, CancellationToken cancellationToken) =>
        await files.DeleteAsync(Tenancy.DefaultProject, id, cancellationToken) ? TypedResults.Ok(new DeletedObject(id, "file")) : NoFile(id);

    private static async Task<Results<FileStreamHttpResult, ApiError>> ContentAsync(
        string id, HttpResponse response, FileStore files, CancellationToken cancellationToken)
    {
        if (await files.FindAsync(Tenancy.DefaultProject, id, cancellationToken) is not { } file)
        {
            return NoFile(id);
        }

        response.Headers.XContentTypeOptions = "nosniff"; // what a stranger uploaded is never a page of ours
        return TypedResults.Stream(await files.OpenAsync(file, cancellationToken), "application/octet-stream", file.Filename);
    }

    private static async Task<DatasetCheck> CheckAsync(IArtifactStore store, Blob blob, CancellationToken cancellationToken)
    {
        await using var content = await store.OpenAsync(blob.Sha256, cancellationToken);
        return await Task.Run(() => DatasetFile.Check(content, cancellationToken), cancellationToken);
    }

    private static ApiError Refuse(DatasetCheck check) => ApiError.From(
        [.. check.Faults.Select(Detail)], (int)Math.Min(check.FaultCount, int.MaxValue));

    private static ErrorDetail Detail(DatasetFault fault)
    {
        var place = fault.Path.Length > 0 ? $"Line {fault.Line}, {fault.Path}" : $"Line {fault.Line}";
        return new($"{place}: {fault.Message} {fault.Fix}", "file", fault.Rule, fault.Line, fault.Path.Length > 0 ? fault.Path : null);
    }

    private static ApiError NoFile(string id) => ApiError.NotFound($"No such File object: {ForeignText.Clean(id, 100)}", "id");
}
