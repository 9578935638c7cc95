using PeftServer.Engine.Tokenizers;

namespace PeftServer.Engine.Data;

/// <summary>
/// What a tokenizer's post-processor puts around one text, or around and between two, found by having it done: so that texts can be cut, windowed or put together
/// word by word and still look as the model knows them.
/// </summary>
/// <param name="Before">Ids before the (first) text.</param>
/// <param name="Between">Ids between two texts.</param>
/// <param name="After">Ids at the end.</param>
/// <param name="SecondType">Type id of the second text and of what follows it.</param>
/// <param name="JoinsBySpace">Words within a sentence begin with a space of their own.</param>
internal sealed record SequenceFrame(int[] Before, int[] Between, int[] After, int SecondType, bool JoinsBySpace)
{
    private const string Probe = "a";

    /// <summary>Around one text.</summary>
    public static SequenceFrame Of(Tokenizer tokenizer)
    {
        var (inner, whole) = (tokenizer.Encode(Probe, addSpecialTokens: false), tokenizer.EncodeWithOffsets(Probe));
        var first = FirstOfText(whole, 0);
        return new SequenceFrame([.. whole.Ids.Take(first)], [], [.. whole.Ids.Skip(first + inner.Length)], 0, JoinsWords(tokenizer));
    }

    /// <summary>Around and between two texts.</summary>
    public static SequenceFrame OfPair(Tokenizer tokenizer)
    {
        var (inner, whole) = (tokenizer.Encode(Probe, addSpecialTokens: false), tokenizer.EncodeWithOffsets(Probe, Probe));
        var first = FirstOfText(whole, 0);
        var second = FirstOfText(whole, first + inner.Length);
        return new SequenceFrame(
            [.. whole.Ids.Take(first)], [.. whole.Ids.Skip(first + inner.Length).Take(second - first - inner.Length)], [.. whole.Ids.Skip(second + inner.Length)],
            whole.TypeIds[second], JoinsWords(tokenizer));
    }

    /// <summary>A word of a sentence that is given as words.</summary>
    public int[] EncodeWord(Tokenizer tokenizer, string word, bool isFirst) => tokenizer.Encode(JoinsBySpace && !isFirst ? $" {word}" : word, addSpecialTokens: false);

    private static int FirstOfText(TokenEncoding whole, int from)
    {
        while (from < whole.Count && whole.SpecialTokensMask[from])
        {
            from++;
        }

        return from;
    }

    private static bool JoinsWords(Tokenizer tokenizer)
    {
        int[] Ids(string text) => tokenizer.Encode(text, addSpecialTokens: false);
        return !Ids("a b").AsSpan().SequenceEqual((int[])[.. Ids("a"), .. Ids("b")]);
    }
}
