using System.Runtime.CompilerServices;
using System.Text;
using PeftServer.Engine.Generation;

namespace PeftServer.Inference.Writing;

/// <summary>
/// The answers to one request, all written at once: those to the first prompt, then those to the next. Whole, or in pieces as they come; how
/// they look is up to the API they are for.
/// </summary>
internal abstract class WrittenAnswers<TRequest>(TRequest request, Writer writer, IReadOnlyList<int[]> prompts)
    where TRequest : SampledRequest
{
    protected TRequest Request { get; } = request;

    protected Writer Writer { get; } = writer;

    /// <summary>All of them in one object.</summary>
    public async Task<object> CompleteAsync(CancellationToken cancellationToken)
    {
        using var giveUp = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        try
        {
            var answers = await Task.WhenAll(Start(giveUp.Token).Select((answer, index) => WriteAsync(answer, index, giveUp.Token)));
            return Whole([.. answers.Chunk(Request.Candidates).SelectMany(Chosen)], UsageOf(answers.Sum(answer => answer.TokenCount)));
        }
        finally
        {
            await giveUp.CancelAsync(); // a stop string ends an answer before the engine would
        }
    }

    /// <summary>Pieces of them as they come; with <c>include_usage</c> one more at the end.</summary>
    public async IAsyncEnumerable<object> StreamAsync([EnumeratorCancellation] CancellationToken cancellationToken)
    {
        using var giveUp = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        var answers = Start(giveUp.Token);
        var (begun, written) = (new bool[answers.Count], new int[answers.Count]);
        try
        {
            await foreach (var (index, piece) in AnswerPieces.MergeAsync(answers, giveUp.Token))
            {
                written[index] = piece.TokenCount;
                var soFar = Request.StreamOptions?.ContinuousUsageStats is true ? UsageOf(written.Sum()) : null;
                foreach (var chunk in Chunks(index, piece, isFirst: !begun[index], soFar))
                {
                    yield return chunk;
                }

                begun[index] = true;
            }

            if (Request.StreamOptions?.IncludeUsage is true)
            {
                yield return Last(UsageOf(answers.Sum(answer => answer.TokenCount)));
            }
        }
        finally
        {
            await giveUp.CancelAsync();
        }
    }

    /// <summary>The object that holds <paramref name="answers"/>.</summary>
    protected abstract object Whole(IReadOnlyList<WrittenAnswer> answers, Usage usage);

    /// <summary>What is sent of a piece of the answer of that number; with what the request has cost so far, where that is wanted.</summary>
    protected abstract IEnumerable<object> Chunks(int index, AnswerPiece piece, bool isFirst, Usage? usage);

    /// <summary>What is sent behind all pieces.</summary>
    protected abstract object Last(Usage usage);

    private List<Answer> Start(CancellationToken cancellationToken) =>
        [.. prompts.SelectMany(prompt => Request.UseBeamSearch is true
            ? Writer.Search(Request, prompt, cancellationToken)
            : Enumerable.Range(0, Request.Candidates).Select(choice => Writer.Start(Request, prompt, choice, cancellationToken)))];

    private Usage UsageOf(int written) => new(prompts.Sum(prompt => prompt.Length), written);

    /// <summary>Of the answers to one prompt those that were wanted: where more were written, the likeliest by token.</summary>
    private IEnumerable<WrittenAnswer> Chosen(WrittenAnswer[] answers) => answers.Length == (Request.N ?? 1)
        ? answers
        : answers.OrderByDescending(answer => answer.Tokens.Select(token => token.LogProbability).DefaultIfEmpty(0).Average()).Take(Request.N ?? 1);

    private async Task<WrittenAnswer> WriteAsync(Answer answer, int index, CancellationToken cancellationToken)
    {
        var (text, finish, tokens) = (new StringBuilder(), "stop", new List<ScoredToken>());
        IReadOnlyList<PromptToken>? prompt = null;
        await foreach (var piece in answer.ReadAsync(cancellationToken))
        {
            text.Append(piece.Text);
            finish = piece.FinishReason ?? finish;
            prompt ??= piece.Prompt;
            if (piece.Token is { } token)
            {
                tokens.Add(token);
            }
        }

        return new WrittenAnswer(index / Request.Candidates, text.ToString(), finish, tokens, prompt, answer.TokenCount);
    }
}

/// <summary>An answer from its beginning to its end.</summary>
/// <param name="PromptIndex">Which prompt it answers.</param>
/// <param name="Text">Its text.</param>
/// <param name="FinishReason">Why it ended.</param>
/// <param name="Tokens">Its tokens, where log-probabilities are wanted.</param>
/// <param name="Prompt">What the model makes of the prompt's tokens behind the first, where that is wanted.</param>
/// <param name="TokenCount">Tokens that were written for it.</param>
internal sealed record WrittenAnswer(
    int PromptIndex, string Text, string FinishReason, IReadOnlyList<ScoredToken> Tokens, IReadOnlyList<PromptToken>? Prompt, int TokenCount);
