namespace PeftServer.Core.Models;

/// <summary>A name for an adapter on its base: <c>ft:base:org:suffix:id</c>, or <c>…:ckpt-step-N</c> for a checkpoint.</summary>
public sealed class FineTunedModel
{
    public required string Name { get; init; }

    public string ProjectId { get; init; } = Tenancy.DefaultProject;

    public required string BaseModel { get; init; }

    public required string AdapterDigest { get; init; }

    /// <summary>The job it came from; null when it was registered.</summary>
    public string? JobId { get; init; }

    public int? Step { get; init; }

    /// <summary>The outcome of its job; a job has one.</summary>
    public bool IsFinal { get; init; }

    public DateTimeOffset CreatedAt { get; private set; }

    /// <summary>OpenAI's form. Parts left out are empty: <c>ft:tiny-llama:acme::7p4lURx</c>.</summary>
    public static string NameOf(string baseModel, string organization, string? suffix, string shortId, int? step = null) =>
        $"ft:{baseModel}:{organization}:{suffix}:{shortId}" + (step is null ? "" : $":ckpt-step-{step}");
}
