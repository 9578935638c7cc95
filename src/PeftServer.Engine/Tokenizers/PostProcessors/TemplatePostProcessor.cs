namespace PeftServer.Engine.Tokenizers.PostProcessors;

/// <summary>Lays out one text or a pair by a template of sequences and special tokens.</summary>
internal sealed class TemplatePostProcessor(IReadOnlyList<TemplatePart> single, IReadOnlyList<TemplatePart> pair) : PostProcessor
{
    public override int AddedTokens(bool forPair) => (forPair ? pair : single).Sum(p => p.Tokens.Count);

    public override List<TokenEncoding> Process(List<TokenEncoding> encodings, bool addSpecialTokens)
    {
        var result = new List<TokenEncoding>();
        foreach (var part in encodings.Count > 1 ? pair : single)
        {
            var piece = new TokenEncoding();
            if (part.Sequence is { } sequence)
            {
                piece.Append(encodings[sequence], part.TypeId);
            }
            else if (addSpecialTokens)
            {
                foreach (var (id, token) in part.Tokens)
                {
                    piece.Add(id, token, (0, 0), special: true, part.TypeId);
                }
            }

            result.Add(piece);
        }

        return result;
    }
}

/// <summary>A part of the template: the text number <paramref name="Sequence"/>, or special tokens.</summary>
internal sealed record TemplatePart(int? Sequence, IReadOnlyList<(int Id, string Token)> Tokens, int TypeId);
