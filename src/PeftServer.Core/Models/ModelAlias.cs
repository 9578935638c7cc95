namespace PeftServer.Core.Models;

/// <summary>A name of the user's choice for a model; it can be moved to another.</summary>
public sealed class ModelAlias
{
    public string ProjectId { get; init; } = Tenancy.DefaultProject;

    public required string Alias { get; init; }

    public required string ModelName { get; set; }

    public DateTimeOffset CreatedAt { get; private set; }
}
