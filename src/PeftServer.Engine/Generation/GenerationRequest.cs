namespace PeftServer.Engine.Generation;

/// <summary>Tokens to continue, or for an encoder-decoder to read and answer.</summary>
public sealed record GenerationRequest
{
    /// <summary>The prompt, at least one token.</summary>
    public required IReadOnlyList<int> Prompt { get; init; }

    public required SamplingParameters Sampling { get; init; }

    /// <summary>The adapter to use; null for the base alone.</summary>
    public AdapterReference? Adapter { get; init; }

    /// <summary>The task the sequence is of, for adapters that know several; counted from 0.</summary>
    public int Task { get; init; }
}

/// <summary>An adapter by the digest of its files, and the folder that holds them.</summary>
public sealed record AdapterReference(string Digest, string Folder);

/// <summary>
/// One token of an answer. The last one has a <see cref="FinishReason"/>; when that is <see cref="FinishReason.Stop"/> because of a
/// stop token, the token itself is not part of the answer and <see cref="Id"/> is null.
/// </summary>
public sealed record GeneratedToken(
    int? Id, FinishReason? FinishReason, float? LogProbability = null, IReadOnlyList<(int Id, float LogProbability)>? TopLogProbabilities = null);

/// <summary>Why an answer ended.</summary>
public enum FinishReason
{
    Stop,
    Length,
}
