namespace PeftServer.Core.Files;

/// <summary>A file that came by <c>/v1/files</c>; its bytes are a blob of the artifact store.</summary>
public sealed class StoredFile
{
    public string Id { get; init; } = PublicId.NewFile();

    public string ProjectId { get; init; } = Tenancy.DefaultProject;

    /// <summary>As the client called it; never a path here.</summary>
    public required string Filename { get; init; }

    /// <summary>One of OpenAI's purposes: <c>fine-tune</c>, <c>fine-tune-results</c>, …</summary>
    public required string Purpose { get; init; }

    public required long Bytes { get; init; }

    /// <summary>The blob.</summary>
    public required string Sha256 { get; init; }

    /// <summary>Rows of data, where it is a file of rows.</summary>
    public int? Rows { get; init; }

    public DateTimeOffset CreatedAt { get; private set; }

    public DateTimeOffset? ExpiresAt { get; init; }
}
