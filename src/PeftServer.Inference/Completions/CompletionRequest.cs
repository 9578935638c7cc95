using System.Text.Json;
using PeftServer.Core.Http;
using PeftServer.Inference.Writing;

namespace PeftServer.Inference.Completions;

/// <summary>The body of <c>POST /v1/completions</c>: OpenAI's fields, and some of vLLM's.</summary>
internal sealed record CompletionRequest : SampledRequest
{
    /// <summary>Tokens of an answer where the request does not say: OpenAI's default.</summary>
    private const int UsualTokens = 16;

    private const int MaxAnswers = 512;
    private const int MaxCandidates = 20;
    private const int MaxRivals = 20;

    /// <summary>A text to continue, or for an encoder-decoder to read; a list of them; token ids likewise.</summary>
    public required JsonElement Prompt { get; init; }

    /// <summary>Log-probabilities of so many of the likeliest tokens, and of the chosen one.</summary>
    public int? Logprobs { get; init; }

    /// <summary>The prompt stands before the answer, in the text and in the log-probabilities.</summary>
    public bool? Echo { get; init; }

    /// <summary>What follows the text that is asked for: models with tokens for it write what stands between prompt and suffix.</summary>
    public string? Suffix { get; init; }

    /// <summary>
    /// So many answers are written, and of these the <see cref="SampledRequest.N"/> that are likeliest by token are given; of a search, so many
    /// beams.
    /// </summary>
    public int? BestOf { get; init; }

    /// <summary>Not OpenAI's: log-probabilities of the prompt's tokens, with so many of the likeliest beside each, as vLLM gives them.</summary>
    public int? PromptLogprobs { get; init; }

    /// <summary>Not OpenAI's: whether texts get the special tokens that the model knows around a text; yes if left out.</summary>
    public bool? AddSpecialTokens { get; init; }

    internal override int? MostTokens => MaxTokens ?? UsualTokens;

    internal override int? Rivals => Logprobs ?? (Candidates > (N ?? 1) ? 0 : null);

    internal override int? PromptRivals => Echo is true && Logprobs is { } shown ? Math.Max(shown, PromptLogprobs ?? 0) : PromptLogprobs;

    internal override bool ContinuesText => true;

    internal override int BeamWidth => BestOf ?? N ?? 1;

    internal override int Candidates => UseBeamSearch is true ? N ?? 1 : BestOf ?? N ?? 1;

    internal override IReadOnlyList<ErrorDetail> Faults(int vocabulary)
    {
        var faults = SamplingSettings.Faults(this, vocabulary);
        faults.Range("max_tokens", MaxTokens, Echo is true || PromptLogprobs is not null ? 0 : 1, int.MaxValue);
        faults.Range("logprobs", Logprobs, 0, MaxRivals);
        faults.Range("prompt_logprobs", PromptLogprobs, 0, MaxRivals);
        faults.Range("best_of", BestOf, N ?? 1, Math.Max(UseBeamSearch is true ? SamplingSettings.MaxChoices : MaxCandidates, N ?? 1));
        if (Stream is true && Candidates > (N ?? 1))
        {
            faults.Fault("best_of", "'best_of' chooses among whole answers, which cannot be streamed. Leave 'stream' out, or 'best_of'.");
        }

        if (Stream is true && PromptLogprobs is not null)
        {
            faults.Fault("prompt_logprobs", "'prompt_logprobs' cannot be streamed. Leave 'stream' out, or send 'echo' and 'logprobs'.");
        }

        if (Echo is true && Suffix is { Length: > 0 })
        {
            faults.Fault("echo", "'echo' and 'suffix' do not go together. Leave one of them out.");
        }

        return faults;
    }

    /// <summary>Throws <see cref="ApiErrorException"/> where so many prompts want more answers than one request may.</summary>
    public void CheckAnswers(int prompts)
    {
        if (prompts * Candidates > MaxAnswers)
        {
            throw new ApiErrorException(ApiError.BadRequest(
                $"{prompts} prompts with {Candidates} answers each are more than {MaxAnswers} answers. Send several requests.", "prompt", "invalid_value"));
        }
    }
}
