using System.Text;
using PeftServer.Inference.Writing;

namespace PeftServer.Inference.Chat;

/// <summary>The choices of one chat request, in OpenAI's shape.</summary>
internal sealed class ChatAnswers(ChatRequest request, Writer writer, (string Id, long Created) stamp)
    : WrittenAnswers<ChatRequest>(request, writer, [ChatPrompt.Encode(request, writer)])
{
    protected override object Whole(IReadOnlyList<WrittenAnswer> answers, Usage usage) => new ChatCompletion(
        stamp.Id, stamp.Created, Request.Model,
        [.. answers.Select((answer, index) => new ChatChoice(index, new ChatMessage(answer.Text), answer.FinishReason, Logprobs(answer.Tokens)))], usage);

    protected override IEnumerable<object> Chunks(int index, AnswerPiece piece, bool isFirst, Usage? usage)
    {
        if (isFirst)
        {
            yield return Chunk(new ChunkChoice(index, new ChunkDelta { Role = "assistant", Content = "" }, null, null), usage);
        }

        if (piece.Text.Length > 0 || piece.Token is not null)
        {
            yield return Chunk(new ChunkChoice(index, new ChunkDelta { Content = piece.Text }, null, Logprobs(piece.Token is { } token ? [token] : [])), usage);
        }

        if (piece.FinishReason is { } reason)
        {
            yield return Chunk(new ChunkChoice(index, new ChunkDelta(), reason, null), usage);
        }
    }

    protected override object Last(Usage usage) => new ChatCompletionChunk(stamp.Id, stamp.Created, Request.Model, []) { Usage = usage };

    private ChatCompletionChunk Chunk(ChunkChoice choice, Usage? usage) => new(stamp.Id, stamp.Created, Request.Model, [choice]) { Usage = usage };

    private ChatLogprobs? Logprobs(IReadOnlyList<ScoredToken> tokens) => tokens.Count == 0 ? null : new ChatLogprobs([.. tokens.Select(token => Described(
        token.Id, token.LogProbability!.Value, [.. token.Rivals.Select(rival => Described(rival.Id, rival.LogProbability, null))]))]);

    private TokenLogprob Described(int id, float value, IReadOnlyList<TokenLogprob>? top)
    {
        var text = Writer.Served.Texts[id];
        return new TokenLogprob(text, value, [.. Encoding.UTF8.GetBytes(text).Select(octet => (int)octet)], top);
    }
}
