using System.Text.Json;
using PeftServer.Engine.Training;

namespace PeftServer.Core.Jobs;

/// <summary>One thing that happened to a job. Messages, metrics and transitions share one row of numbers.</summary>
public sealed class JobEvent
{
    public required string JobId { get; init; }

    /// <summary>1, 2, 3, … without a gap in a job; the SSE id.</summary>
    public required int Number { get; init; }

    /// <summary><c>ftevent-…</c></summary>
    public string Id { get; init; } = PublicId.NewEvent();

    public string ProjectId { get; init; } = Tenancy.DefaultProject;

    public DateTimeOffset CreatedAt { get; init; }

    public required JobEventType Type { get; init; }

    public required TrainingEventLevel Level { get; init; }

    public required string Message { get; init; }

    /// <summary>The numbers of a metrics event.</summary>
    public JsonElement? Data { get; init; }

    /// <summary>The attempt it belongs to; 0 before the first.</summary>
    public int Attempt { get; init; }

    /// <summary>Set on the event that tells of a transition: the state from here on.</summary>
    public JobState? State { get; init; }
}

/// <summary>OpenAI's two types of event.</summary>
public enum JobEventType
{
    Message,
    Metrics,
}
