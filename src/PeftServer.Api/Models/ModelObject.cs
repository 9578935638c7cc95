using PeftServer.Core.Models;
using PeftServer.Engine.Models;

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

    /// <summary>What it is for, by the Hugging Face Hub's names; null where its files do not tell.</summary>
    public ModelTask? Task { get; init; }

    /// <summary>Paths that answer for it, the usual one first.</summary>
    public IReadOnlyList<string> Endpoints { get; init; } = [];

    public static ModelObject From(BaseModel model, ModelHead? head) => new ModelObject
    {
        Id = model.Name,
        Created = model.CreatedAt.ToUnixTimeSeconds(),
        OwnedBy = "system",
    }.For(head);

    public static ModelObject From(FineTunedModel model, string organization, ModelHead? head) => new ModelObject
    {
        Id = model.Name,
        Created = model.CreatedAt.ToUnixTimeSeconds(),
        OwnedBy = organization,
    }.For(head);

    private ModelObject For(ModelHead? head) =>
        head is { } known && ModelTasks.Of(known) is var task ? this with { Task = task, Endpoints = task.Endpoints } : this;
}
