namespace PeftServer.Engine.Tokenizers.PostProcessors;

/// <summary><c>[CLS] A [SEP]</c>, or <c>[CLS] A [SEP] B [SEP]</c>.</summary>
internal sealed class BertPostProcessor((int Id, string Token) sep, (int Id, string Token) cls) : PostProcessor
{
    public override int AddedTokens(bool pair) => pair ? 3 : 2;

    public override List<TokenEncoding> Process(List<TokenEncoding> encodings, bool addSpecialTokens) =>
        addSpecialTokens ? [.. encodings.Select((e, i) => Framing.Around(i == 0 ? cls : null, e, sep, typeId: i == 0 ? 0 : 1))] : encodings;
}

/// <summary><c>&lt;s&gt; A &lt;/s&gt;</c>, or <c>&lt;s&gt; A &lt;/s&gt; &lt;/s&gt; B &lt;/s&gt;</c>, all of type 0.</summary>
internal sealed class RobertaPostProcessor((int Id, string Token) sep, (int Id, string Token) cls, bool trimOffsets, bool addPrefixSpace) : PostProcessor
{
    public override int AddedTokens(bool pair) => pair ? 4 : 2;

    public override List<TokenEncoding> Process(List<TokenEncoding> encodings, bool addSpecialTokens)
    {
        foreach (var encoding in trimOffsets ? encodings : [])
        {
            ByteLevelPostProcessor.TrimOffsets(encoding, addPrefixSpace);
        }

        return [.. encodings.Select((e, i) =>
        {
            var plain = new TokenEncoding();
            plain.Append(e, typeId: 0);
            return addSpecialTokens ? Framing.Around(i == 0 ? cls : sep, plain, sep, typeId: 0) : plain;
        })];
    }
}

/// <summary>Puts special tokens around a text.</summary>
internal static class Framing
{
    public static TokenEncoding Around((int Id, string Token)? before, TokenEncoding text, (int Id, string Token) after, int typeId)
    {
        var framed = new TokenEncoding();
        if (before is { } first)
        {
            framed.Add(first.Id, first.Token, (0, 0), special: true, typeId);
        }

        framed.Append(text);
        framed.Add(after.Id, after.Token, (0, 0), special: true, typeId);
        return framed;
    }
}
