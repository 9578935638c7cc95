using System.Runtime.CompilerServices;
using System.Threading.Channels;

namespace PeftServer.Inference.Writing;

/// <summary>Several answers at once, as one stream.</summary>
internal static class AnswerPieces
{
    /// <summary>Their pieces as they come, each with the number of its answer. Fails as soon as one of them does.</summary>
    public static async IAsyncEnumerable<(int Index, AnswerPiece Piece)> MergeAsync(IReadOnlyList<Answer> answers, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        using var giveUp = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        var pieces = Channel.CreateUnbounded<(int Index, AnswerPiece Piece)>();
        var readers = answers.Select((answer, index) => ForwardAsync(answer, index, pieces.Writer, giveUp.Token)).ToList();
        var ended = Task.WhenAll(readers).ContinueWith(
            done => pieces.Writer.TryComplete(done.Exception?.InnerException), CancellationToken.None, TaskContinuationOptions.ExecuteSynchronously, TaskScheduler.Default);
        try
        {
            await foreach (var piece in pieces.Reader.ReadAllAsync(giveUp.Token))
            {
                yield return piece;
            }
        }
        finally
        {
            await giveUp.CancelAsync();
            await ended;
        }
    }

    private static async Task ForwardAsync(Answer answer, int index, ChannelWriter<(int Index, AnswerPiece Piece)> pieces, CancellationToken cancellationToken)
    {
        await foreach (var piece in answer.ReadAsync(cancellationToken))
        {
            await pieces.WriteAsync((index, piece), cancellationToken);
        }
    }
}
