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

    /// <summary>
    /// Whether log-probabilities of the prompt's own tokens are wanted, and of how many of the likeliest tokens beside each. Not with an
    /// encoder-decoder, which foretells none of them.
    /// </summary>
    public int? PromptLogProbabilities { get; init; }
}

/// <summary>An adapter by the digest of its files, and the folder that holds them.</summary>
public sealed record AdapterReference(string Digest, string Folder);

/// <summary>
/// One token of an answer. The last one has a <see cref="FinishReason"/>; when that is <see cref="FinishReason.Stop"/> because of a
/// stop token, the token itself is not part of the answer and <see cref="Id"/> is null. The first one brings <see cref="Prompt"/> where that is
/// wanted: what the model makes of each token of the prompt behind the first, which nothing foretells.
/// </summary>
public sealed record GeneratedToken(
    int? Id, FinishReason? FinishReason, float? LogProbability = null, IReadOnlyList<(int Id, float LogProbability)>? TopLogProbabilities = null)
{
    public IReadOnlyList<PromptToken>? Prompt { get; init; }
}

/// <summary>What a model makes of a token of its prompt.</summary>
/// <param name="Id">The token.</param>
/// <param name="LogProbability">Its log-probability behind the tokens before it.</param>
/// <param name="Rank">1 where no token was likelier.</param>
/// <param name="Top">The likeliest tokens in its place, likeliest first.</param>
public sealed record PromptToken(int Id, float LogProbability, int Rank, IReadOnlyList<(int Id, float LogProbability)> Top);

/// <summary>Why an answer ended.</summary>
public enum FinishReason
{
    Stop,
    Length,

    /// <summary>No token was asked for, and there is none.</summary>
    NothingAsked,
}
