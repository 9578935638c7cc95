using System.Threading.Channels;
using PeftServer.Engine.Generation;

namespace PeftServer.Inference.Writing;

/// <summary>What a search of beams has found, token by token as if it were being written.</summary>
internal static class FoundTokens
{
    /// <summary>Those of the hypothesis of that rank, 0 for the best; none and why where there is no result.</summary>
    public static ChannelReader<GeneratedToken> Of(Task<IReadOnlyList<BeamHypothesis>> search, int rank)
    {
        var tokens = Channel.CreateUnbounded<GeneratedToken>();
        _ = FillAsync(search, rank, tokens.Writer);
        return tokens.Reader;
    }

    private static async Task FillAsync(Task<IReadOnlyList<BeamHypothesis>> search, int rank, ChannelWriter<GeneratedToken> tokens)
    {
        try
        {
            var found = await search;
            var hypothesis = found[Math.Min(rank, found.Count - 1)]; // a tiny vocabulary may have fewer texts
            var shown = hypothesis.FinishReason is FinishReason.Stop ? hypothesis.Tokens : hypothesis.Tokens.SkipLast(1);
            foreach (var id in shown)
            {
                tokens.TryWrite(new GeneratedToken(id, null));
            }

            tokens.TryWrite(new GeneratedToken(hypothesis.FinishReason is FinishReason.Stop ? null : hypothesis.Tokens[^1], hypothesis.FinishReason));
            tokens.TryComplete();
        }
        catch (Exception e)
        {
            tokens.TryComplete(e);
        }
    }
}
