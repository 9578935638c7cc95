using PeftServer.Core.Files;

namespace PeftServer.Api.Files;

/// <summary>OpenAI's file. Times are Unix seconds.</summary>
public sealed record FileObject
{
    public required string Id { get; init; }

    public string Object { get; init; } = "file";

    public required long Bytes { get; init; }

    public required long CreatedAt { get; init; }

    public long? ExpiresAt { get; init; }

    public required string Filename { get; init; }

    /// <summary>fine-tune, or fine-tune-results for what a job leaves.</summary>
    public required string Purpose { get; init; }

    /// <summary>Always processed: a file is checked before it is kept.</summary>
    public string Status { get; init; } = "processed";

    public string? StatusDetails { get; init; }

    public static FileObject From(StoredFile file) => new()
    {
        Id = file.Id,
        Bytes = file.Bytes,
        CreatedAt = file.CreatedAt.ToUnixTimeSeconds(),
        ExpiresAt = file.ExpiresAt?.ToUnixTimeSeconds(),
        Filename = file.Filename,
        Purpose = file.Purpose,
    };
}
