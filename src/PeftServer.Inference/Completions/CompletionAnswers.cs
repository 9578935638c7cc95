using System.Globalization;
using PeftServer.Engine.Generation;
using PeftServer.Inference.Writing;

namespace PeftServer.Inference.Completions;

/// <summary>The answers to one request of <c>/v1/completions</c>, in OpenAI's shape.</summary>
internal sealed class CompletionAnswers(CompletionRequest request, Writer writer, IReadOnlyList<TextInput> prompts, (string Id, long Created) stamp)
    : WrittenAnswers<CompletionRequest>(request, writer, [.. prompts.Select(prompt => prompt.Ids)])
{
    private readonly IReadOnlyList<EchoedPrompt> _echoes = request.Echo is true ? [.. prompts.Select(prompt => EchoedPrompt.Of(prompt, writer.Served.Tokenizer))] : [];

    protected override object Whole(IReadOnlyList<WrittenAnswer> answers, Usage usage) =>
        Completion([.. answers.Select((answer, index) => Choice(index, answer.PromptIndex, answer.Text, answer.FinishReason, answer.Tokens, answer.Prompt, isFirst: true))]) with { Usage = usage };

    protected override IEnumerable<object> Chunks(int index, AnswerPiece piece, bool isFirst, Usage? usage)
    {
        if (piece.Text.Length > 0 || piece.Token is not null || piece.FinishReason is not null || (isFirst && _echoes.Count > 0))
        {
            yield return Completion([Choice(index, index / Request.Candidates, piece.Text, piece.FinishReason, piece.Token is { } token ? [token] : [], piece.Prompt, isFirst)]) with { Usage = usage };
        }
    }

    protected override object Last(Usage usage) => Completion([]) with { Usage = usage };

    private Completion Completion(IReadOnlyList<CompletionChoice> choices) => new(stamp.Id, stamp.Created, Request.Model, choices);

    private CompletionChoice Choice(
        int index, int promptIndex, string text, string? finishReason, IReadOnlyList<ScoredToken> tokens, IReadOnlyList<PromptToken>? prompt, bool isFirst)
    {
        var told = tokens;
        if (_echoes.Count > 0)
        {
            var echo = _echoes[promptIndex];
            var shifted = tokens.Select(token => token with { Offset = token.Offset + echo.Length });
            text = isFirst ? echo.Text + text : text;
            told = isFirst ? [.. echo.Scored(prompt ?? []), .. shifted] : [.. shifted];
        }

        return new CompletionChoice(text, index, Request.Logprobs is { } rivals && told.Count > 0 ? CompletionLogprobs.Of(told, rivals, Writer.Served.Texts) : null, finishReason)
        {
            PromptLogprobs = Request.PromptLogprobs is { } count && prompt is not null ? [null, .. prompt.Select(token => Described(token, count))] : null,
        };
    }

    private Dictionary<string, PromptLogprob> Described(PromptToken token, int rivals)
    {
        var described = new Dictionary<string, PromptLogprob> { [Key(token.Id)] = new(token.LogProbability, token.Rank, Writer.Served.Texts[token.Id]) };
        foreach (var ((id, value), rank) in token.Top.Take(rivals).Select((rival, i) => (rival, i + 1)))
        {
            described.TryAdd(Key(id), new PromptLogprob(value, rank, Writer.Served.Texts[id]));
        }

        return described;
    }

    private static string Key(int id) => id.ToString(CultureInfo.InvariantCulture);
}
