using System.Runtime.CompilerServices;
using System.Text;
using System.Threading.Channels;
using PeftServer.Engine.Generation;
using PeftServer.Engine.Tokenizers;

namespace PeftServer.Inference.Chat;

/// <summary>One piece of an answer: text that is safe to show, and at the end why it ended.</summary>
internal sealed record AnswerPiece(string Text, string? FinishReason, TokenLogprob? Logprob);

/// <summary>Turns the tokens of one choice into text, never half a character, never a part of a stop string.</summary>
internal sealed class Answer(ChannelReader<GeneratedToken> tokens, Tokenizer tokenizer, IReadOnlyList<string> stops)
{
    /// <summary>Tokens so far, the one that ended the turn included.</summary>
    public int TokenCount { get; private set; }

    public async IAsyncEnumerable<AnswerPiece> ReadAsync([EnumeratorCancellation] CancellationToken cancellationToken)
    {
        var detokenizer = tokenizer.CreateStreamingDecoder(skipSpecialTokens: true);
        var stopping = new StopStrings(stops);
        await foreach (var token in tokens.ReadAllAsync(cancellationToken))
        {
            TokenCount++;
            var text = token.Id is { } id ? stopping.Push(detokenizer.Push(id)) : "";
            var logprob = Logprob(token);
            if (stopping.HasStopped)
            {
                yield return new AnswerPiece(text, "stop", logprob);
                yield break;
            }

            if (token.FinishReason is { } reason)
            {
                text += stopping.Push(detokenizer.Flush()) + stopping.Flush();
                yield return new AnswerPiece(text, reason is FinishReason.Stop || stopping.HasStopped ? "stop" : "length", logprob);
                yield break;
            }

            yield return new AnswerPiece(text, null, logprob);
        }
    }

    private TokenLogprob? Logprob(GeneratedToken token) => token is { Id: { } id, LogProbability: { } value }
        ? Described(id, value, [.. (token.TopLogProbabilities ?? []).Select(rival => Described(rival.Id, rival.LogProbability, null))])
        : null;

    private TokenLogprob Described(int id, float value, IReadOnlyList<TokenLogprob>? top)
    {
        var text = tokenizer.Decode([id], skipSpecialTokens: false);
        return new TokenLogprob(text, value, [.. Encoding.UTF8.GetBytes(text).Select(octet => (int)octet)], top);
    }
}
