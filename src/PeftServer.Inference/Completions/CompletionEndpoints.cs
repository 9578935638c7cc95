using System.Runtime.CompilerServices;
using System.Text;
using System.Text.Json;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;
using PeftServer.Core;
using PeftServer.Core.Http;
using PeftServer.Engine;
using PeftServer.Inference.Chat;

namespace PeftServer.Inference.Completions;

/// <summary><c>POST /v1/completions</c>: a text continued, or with an encoder-decoder read and answered.</summary>
internal static class CompletionEndpoints
{
    private const string Path = "/v1/completions";

    extension(IEndpointRouteBuilder routes)
    {
        public void MapCompletions() => routes.MapPost(Path, CompleteAsync);
    }

    private static async Task<IResult> CompleteAsync(
        JsonBody<CompletionRequest> body, RequestedModels requested, ServedModels models, TimeProvider clock, HttpContext context)
    {
        var (request, cancellationToken) = (body.Value, context.RequestAborted);
        var model = await requested.FindAsync(request.Model, Path, cancellationToken);
        return await RequestedModels.ServeAsync(model, async () =>
        {
            var writer = await Writer.LoadAsync(model, models, cancellationToken);
            var faults = request.Faults(writer.Served.Tokenizer.VocabularySize);
            if (faults.Count > 0)
            {
                return ApiError.From(faults);
            }

            writer.CheckTask(request.TaskId);
            var room = writer.Limits.IsEncoderDecoder ? writer.PromptRoom : writer.PromptRoom - 1; // one for the answer
            var prompts = new TextInputs("prompt", writer.Served.Tokenizer, writer.Limits.Vocabulary, room).Read(request.Prompt);
            request.CheckAnswers(prompts.Count);
            var (id, created) = ($"cmpl-{PublicId.Random(24)}", clock.GetUtcNow().ToUnixTimeSeconds());
            var run = new CompletionRun(request, writer, [.. prompts.Select(prompt => prompt.Ids)], id, created);
            return request.Stream is true
                ? await StreamAsync(run, context)
                : Results.Json(await run.CompleteAsync(cancellationToken), PeftJson.Options);
        });
    }

    private static async Task<IResult> StreamAsync(CompletionRun run, HttpContext context)
    {
        context.Response.ContentType = "text/event-stream; charset=utf-8";
        context.Response.Headers.CacheControl = "no-cache";
        await foreach (var chunk in run.StreamAsync(context.RequestAborted))
        {
            await context.Response.WriteAsync($"data: {JsonSerializer.Serialize(chunk, PeftJson.Options)}\n\n", context.RequestAborted);
            await context.Response.Body.FlushAsync(context.RequestAborted);
        }

        await context.Response.WriteAsync("data: [DONE]\n\n", context.RequestAborted);
        return Results.Empty;
    }
}

/// <summary>The answers to one request, all generated at once: those to the first prompt, then those to the next.</summary>
internal sealed class CompletionRun(CompletionRequest request, Writer writer, IReadOnlyList<int[]> prompts, string id, long created)
{
    /// <summary>All of them, whole.</summary>
    public async Task<Completion> CompleteAsync(CancellationToken cancellationToken)
    {
        using var giveUp = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        try
        {
            var answers = Start(giveUp.Token);
            var choices = await Task.WhenAll(answers.Select((answer, index) => ChoiceAsync(answer, index, giveUp.Token)));
            return new Completion(id, created, request.Model, choices) { Usage = UsageOf(answers) };
        }
        finally
        {
            await giveUp.CancelAsync(); // a stop string ends an answer before the engine would
        }
    }

    /// <summary>Pieces of the answers as they come; with <c>include_usage</c> one more at the end.</summary>
    public async IAsyncEnumerable<Completion> StreamAsync([EnumeratorCancellation] CancellationToken cancellationToken)
    {
        using var giveUp = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        var answers = Start(giveUp.Token);
        var offsets = new int[answers.Count];
        try
        {
            await foreach (var (index, piece) in AnswerPieces.MergeAsync(answers, giveUp.Token))
            {
                if (piece.Text.Length > 0 || piece.Logprob is not null || piece.FinishReason is not null)
                {
                    var logprobs = piece.Logprob is { } logprob ? CompletionLogprobs.Of([logprob], offsets[index]) : null;
                    offsets[index] += piece.Logprob?.Token.Length ?? 0;
                    yield return new Completion(id, created, request.Model, [new CompletionChoice(piece.Text, index, logprobs, piece.FinishReason)]);
                }
            }

            if (request.StreamOptions?.IncludeUsage is true)
            {
                yield return new Completion(id, created, request.Model, []) { Usage = UsageOf(answers) };
            }
        }
        finally
        {
            await giveUp.CancelAsync();
        }
    }

    private List<Answer> Start(CancellationToken cancellationToken) =>
        [.. prompts.SelectMany(prompt => Enumerable.Range(0, request.N ?? 1).Select(choice => writer.Start(request, prompt, choice, cancellationToken)))];

    private Usage UsageOf(IReadOnlyList<Answer> answers) => new(prompts.Sum(prompt => prompt.Length), answers.Sum(answer => answer.TokenCount));

    private static async Task<CompletionChoice> ChoiceAsync(Answer answer, int index, CancellationToken cancellationToken)
    {
        var (text, finish, logprobs) = (new StringBuilder(), "stop", new List<TokenLogprob>());
        await foreach (var piece in answer.ReadAsync(cancellationToken))
        {
            text.Append(piece.Text);
            finish = piece.FinishReason ?? finish;
            if (piece.Logprob is { } logprob)
            {
                logprobs.Add(logprob);
            }
        }

        return new CompletionChoice(text.ToString(), index, CompletionLogprobs.Of(logprobs), finish);
    }
}
