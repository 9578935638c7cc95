using System.Text.Json;
using PeftServer.Core.Http;
using PeftServer.Inference.Chat;

namespace PeftServer.Inference.Completions;

/// <summary>The body of <c>POST /v1/completions</c>: OpenAI's fields, and <c>top_k</c>.</summary>
internal sealed record CompletionRequest : SampledRequest
{
    /// <summary>Tokens of an answer where the request does not say: OpenAI's default.</summary>
    private const int UsualTokens = 16;

    private const int MaxAnswers = 512;

    /// <summary>A text to continue, or for an encoder-decoder to read; a list of them; token ids likewise.</summary>
    public required JsonElement Prompt { get; init; }

    /// <summary>Log-probabilities of so many of the likeliest tokens, and of the chosen one.</summary>
    public int? Logprobs { get; init; }

    // Taken where they hold what is done anyway.
    public bool? Echo { get; init; }
    public JsonElement? Suffix { get; init; }
    public int? BestOf { get; init; }

    internal override int? MostTokens => MaxTokens ?? UsualTokens;

    internal override int? Rivals => Logprobs;

    /// <summary>Every fault of the request, field and remedy.</summary>
    public IReadOnlyList<ErrorDetail> Faults(int vocabulary)
    {
        var faults = SamplingSettings.Faults(this, vocabulary);
        faults.Range("logprobs", Logprobs, 0, 5);
        faults.OnlyDefault("suffix", Suffix);
        faults.OnlyDefault("echo", JsonSerializer.SerializeToElement(Echo), bool.FalseString);
        if (BestOf is { } best && best != (N ?? 1))
        {
            faults.Add(new ErrorDetail("'best_of' is not supported by this server yet. Use 'n' alone and choose by 'logprobs'.", "best_of", "unsupported_parameter"));
        }

        return faults;
    }

    /// <summary>Throws <see cref="ApiErrorException"/> where so many prompts want more answers than one request may.</summary>
    public void CheckAnswers(int prompts)
    {
        if (prompts * (N ?? 1) > MaxAnswers)
        {
            throw new ApiErrorException(ApiError.BadRequest(
                $"{prompts} prompts with 'n' = {N ?? 1} are more than {MaxAnswers} answers. Send several requests.", "prompt", "invalid_value"));
        }
    }
}
