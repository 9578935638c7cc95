namespace PeftServer.Core.Inference;

/// <summary>An inference process that the api can forward to.</summary>
public sealed class InferenceHost
{
    public required string Id { get; init; }

    /// <summary>Where it listens, as the api reaches it.</summary>
    public required string Url { get; set; }

    public required InferenceState State { get; set; }

    /// <summary>Requests that run or wait there.</summary>
    public int Load { get; set; }

    /// <summary>By the database's clock.</summary>
    public DateTimeOffset LastSeenAt { get; set; }

    public List<InferenceBase> Bases { get; private set; } = [];
}

/// <summary>A base model that an inference process holds.</summary>
public sealed class InferenceBase
{
    public required string HostId { get; init; }

    public required string BaseModel { get; init; }

    public required InferenceState State { get; set; }
}

public enum InferenceState
{
    Loading,
    Ready,
    Draining,
    Failed,
}
