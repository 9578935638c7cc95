using PeftServer.Engine.Generation;
using PeftServer.Engine.Tokenizers;
using PeftServer.Inference.Writing;

namespace PeftServer.Inference.Completions;

/// <summary>A prompt as it stands before its answer.</summary>
/// <param name="Text">The text that was sent, or what the tokens that were sent say.</param>
/// <param name="Ids">Its tokens.</param>
/// <param name="Offsets">Where each of them begins in the text, in code points.</param>
/// <param name="Length">Code points of the text.</param>
internal sealed record EchoedPrompt(string Text, IReadOnlyList<int> Ids, IReadOnlyList<int> Offsets, int Length)
{
    public static EchoedPrompt Of(TextInput prompt, Tokenizer tokenizer) => prompt is { Text: { } text, Encoding: { } encoding }
        ? new EchoedPrompt(text, prompt.Ids, OffsetsOf(encoding), LengthOf(text))
        : OfTokens(prompt.Ids, tokenizer);

    /// <summary>Its tokens with what the model makes of them: of the first nothing, of the others what <paramref name="known"/> says.</summary>
    public IEnumerable<ScoredToken> Scored(IReadOnlyList<PromptToken> known) => known.Count == 0 && Ids.Count > 1
        ? []
        : Ids.Select((id, i) => i == 0 ? new ScoredToken(id, null, [], Offsets[0]) : new ScoredToken(id, known[i - 1].LogProbability, known[i - 1].Top, Offsets[i]));

    /// <summary>Tokens that a template put in have no text: they stand where the text before them ends.</summary>
    private static List<int> OffsetsOf(TokenEncoding encoding)
    {
        var (offsets, end) = (new List<int>(), 0);
        for (var i = 0; i < encoding.Count; i++)
        {
            offsets.Add(encoding.SpecialTokensMask[i] ? end : encoding.Offsets[i].Start);
            end = encoding.SpecialTokensMask[i] ? end : encoding.Offsets[i].End;
        }

        return offsets;
    }

    private static EchoedPrompt OfTokens(int[] ids, Tokenizer tokenizer)
    {
        var (decoder, text, offsets, length) = (tokenizer.CreateStreamingDecoder(skipSpecialTokens: false), "", new List<int>(), 0);
        foreach (var id in ids)
        {
            offsets.Add(length);
            var added = decoder.Push(id);
            (text, length) = (text + added, length + LengthOf(added));
        }

        var rest = decoder.Flush();
        return new EchoedPrompt(text + rest, ids, offsets, length + LengthOf(rest));
    }

    private static int LengthOf(string text) => text.EnumerateRunes().Count();
}
