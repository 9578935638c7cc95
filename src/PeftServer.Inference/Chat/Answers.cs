using System.Runtime.CompilerServices;
using System.Text;

namespace PeftServer.Inference.Chat;

/// <summary>The choices of one chat request, all generated at once.</summary>
internal sealed class Answers(ChatRequest request, Writer writer, int[] prompt)
{
    /// <summary>All choices, whole.</summary>
    public async Task<ChatCompletion> CompleteAsync(string id, long created, CancellationToken cancellationToken)
    {
        using var giveUp = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        try
        {
            var choices = await Task.WhenAll(Start(giveUp.Token).Select((answer, index) => ChoiceAsync(answer, index, giveUp.Token)));
            return new ChatCompletion(
                id, created, request.Model, [.. choices.Select(choice => choice.Choice)], new Usage(prompt.Length, choices.Sum(choice => choice.Tokens)));
        }
        finally
        {
            await giveUp.CancelAsync(); // a stop string ends an answer before the engine would
        }
    }

    /// <summary>Pieces of the choices as they come; with <c>include_usage</c> one more at the end.</summary>
    public async IAsyncEnumerable<ChatCompletionChunk> StreamAsync(string id, long created, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        using var giveUp = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        var answers = Start(giveUp.Token);
        try
        {
            for (var index = 0; index < answers.Count; index++)
            {
                yield return Chunk(new ChunkChoice(index, new ChunkDelta { Role = "assistant", Content = "" }, null, null));
            }

            await foreach (var (index, piece) in AnswerPieces.MergeAsync(answers, giveUp.Token))
            {
                if (piece.Text.Length > 0 || piece.Logprob is not null)
                {
                    var logprobs = piece.Logprob is { } logprob ? new ChatLogprobs([logprob]) : null;
                    yield return Chunk(new ChunkChoice(index, new ChunkDelta { Content = piece.Text }, null, logprobs));
                }

                if (piece.FinishReason is { } reason)
                {
                    yield return Chunk(new ChunkChoice(index, new ChunkDelta(), reason, null));
                }
            }

            if (request.StreamOptions?.IncludeUsage is true)
            {
                yield return new ChatCompletionChunk(id, created, request.Model, []) { Usage = new Usage(prompt.Length, answers.Sum(answer => answer.TokenCount)) };
            }
        }
        finally
        {
            await giveUp.CancelAsync();
        }

        ChatCompletionChunk Chunk(ChunkChoice choice) => new(id, created, request.Model, [choice]);
    }

    private List<Answer> Start(CancellationToken cancellationToken) =>
        [.. Enumerable.Range(0, request.N ?? 1).Select(choice => writer.Start(request, prompt, choice, cancellationToken))];

    private static async Task<(ChatChoice Choice, int Tokens)> ChoiceAsync(Answer answer, int index, CancellationToken cancellationToken)
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

        return (new ChatChoice(index, new ChatMessage(text.ToString()), finish, logprobs.Count > 0 ? new ChatLogprobs(logprobs) : null), answer.TokenCount);
    }
}
