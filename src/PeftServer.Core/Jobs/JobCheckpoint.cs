using System.Text.Json;

namespace PeftServer.Core.Jobs;

/// <summary>A step of a job whose adapter was kept as a model of its own.</summary>
public sealed class JobCheckpoint
{
    /// <summary><c>ftckpt_…</c></summary>
    public string Id { get; init; } = PublicId.NewCheckpoint();

    public string ProjectId { get; init; } = Tenancy.DefaultProject;

    public required string JobId { get; init; }

    public required int StepNumber { get; init; }

    /// <summary>The model's name; the last step's has no <c>:ckpt-step-N</c>.</summary>
    public required string ModelName { get; init; }

    public JsonElement? Metrics { get; init; }

    public DateTimeOffset CreatedAt { get; private set; }
}
