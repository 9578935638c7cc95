using PeftServer.Core.Models;

namespace PeftServer.Api.Models;

/// <summary>OpenAI's model: a base, or what a job made.</summary>
public sealed record ModelObject
{
    /// <summary>What chat requests and jobs name.</summary>
    public required string Id { get; init; }

    public string Object { get; init; } = "model";

    /// <summary>Unix seconds.</summary>
    public required long Created { get; init; }

    public required string OwnedBy { get; init; }

    public static ModelObject From(BaseModel model) =>
        new() { Id = model.Name, Created = model.CreatedAt.ToUnixTimeSeconds(), OwnedBy = "system" };

    public static ModelObject From(FineTunedModel model, string organization) =>
        new() { Id = model.Name, Created = model.CreatedAt.ToUnixTimeSeconds(), OwnedBy = organization };
}
