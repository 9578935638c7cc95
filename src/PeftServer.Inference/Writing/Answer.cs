using System.Runtime.CompilerServices;
using System.Threading.Channels;
using PeftServer.Engine.Generation;
using PeftServer.Engine.Tokenizers;

namespace PeftServer.Inference.Writing;

/// <summary>One piece of an answer.</summary>
/// <param name="Text">Text that is safe to show.</param>
/// <param name="FinishReason">At the end why it ended.</param>
/// <param name="Token">The token that brought it, where log-probabilities are wanted.</param>
internal sealed record AnswerPiece(string Text, string? FinishReason, ScoredToken? Token)
{
    /// <summary>With the first piece, where it is wanted: what the model makes of the prompt's tokens behind the first.</summary>
    public IReadOnlyList<PromptToken>? Prompt { get; init; }

    /// <summary>Tokens of the answer up to here; the answer itself may be further on.</summary>
    public int TokenCount { get; init; }
}

/// <summary>A token of a text, as a model sees it.</summary>
/// <param name="Id">The token.</param>
/// <param name="LogProbability">Null where nothing foretells it: the first token of a prompt.</param>
/// <param name="Rivals">The likeliest tokens in its place.</param>
/// <param name="Offset">Where it begins in the text, in code points.</param>
internal sealed record ScoredToken(int Id, float? LogProbability, IReadOnlyList<(int Id, float LogProbability)> Rivals, int Offset);

/// <summary>Turns the tokens of one choice into text, never half a character, never a part of a stop string.</summary>
/// <param name="tokens">As the engine gives them.</param>
/// <param name="tokenizer">The model's.</param>
/// <param name="form">What of them is shown.</param>
/// <param name="context">Tokens that the answer continues: with some tokenizers the first token of a text looks different from the same one inside it.</param>
internal sealed class Answer(ChannelReader<GeneratedToken> tokens, Tokenizer tokenizer, AnswerForm form, IReadOnlyList<int> context)
{
    /// <summary>Tokens so far, the one that ended the turn included.</summary>
    public int TokenCount { get; private set; }

    public async IAsyncEnumerable<AnswerPiece> ReadAsync([EnumeratorCancellation] CancellationToken cancellationToken)
    {
        var (detokenizer, stopping, offset) = (Detokenizer(), new StopStrings(form.Stops, form.ShowsStop), 0);
        await foreach (var token in tokens.ReadAllAsync(cancellationToken))
        {
            TokenCount += token.FinishReason is FinishReason.NothingAsked ? 0 : 1;
            var added = token.Id is { } id ? detokenizer.Push(id) : "";
            var piece = new AnswerPiece(stopping.Push(added), null, Scored(token, offset)) { Prompt = token.Prompt, TokenCount = TokenCount };
            offset += added.EnumerateRunes().Count();
            if (stopping.HasStopped)
            {
                yield return piece with { FinishReason = "stop" };
                yield break;
            }

            if (token.FinishReason is { } reason)
            {
                var rest = stopping.Push(detokenizer.Flush()) + stopping.Flush();
                yield return piece with { Text = piece.Text + rest, FinishReason = reason is FinishReason.Stop || stopping.HasStopped ? "stop" : "length" };
                yield break;
            }

            yield return piece;
        }
    }

    private StreamingDecoder Detokenizer()
    {
        var detokenizer = tokenizer.CreateStreamingDecoder(form.SkipsSpecialTokens);
        foreach (var id in context)
        {
            detokenizer.Push(id);
        }

        detokenizer.Flush(); // what the prompt left incomplete stays so
        return detokenizer;
    }

    private static ScoredToken? Scored(GeneratedToken token, int offset) =>
        token is { Id: { } id, LogProbability: { } value } ? new ScoredToken(id, value, token.TopLogProbabilities ?? [], offset) : null;
}

/// <summary>What of an answer is shown.</summary>
/// <param name="Stops">Strings that end it.</param>
/// <param name="ShowsStop">Whether the one that did belongs to it.</param>
/// <param name="SkipsSpecialTokens">Whether tokens that mark structure are left out.</param>
internal sealed record AnswerForm(IReadOnlyList<string> Stops, bool ShowsStop, bool SkipsSpecialTokens);
