using PeftServer.Engine.Tokenizers.Models;
using PeftServer.Engine.Tokenizers.PreTokenizers;

namespace PeftServer.Engine.Tokenizers;

/// <summary>
/// The short way for byte-level BPE where only ids are wanted: words are slices of the text, remembered as they stand, and
/// spelt in bytes only when one is new. Gives the same ids as the steps one by one.
/// </summary>
internal sealed class ByteLevelPipeline
{
    private readonly IReadOnlyList<Cutter> _cutters;
    private readonly BpeModel _model;
    private readonly WordCache<int> _cache = new();

    private ByteLevelPipeline(IReadOnlyList<Cutter> cutters, BpeModel model) => (_cutters, _model) = (cutters, model);

    /// <summary>Null where the tokenizer is of another kind.</summary>
    public static ByteLevelPipeline? TryCreate(TokenizerParts parts)
    {
        if (parts.Model is not BpeModel model || parts.PreTokenizer is null)
        {
            return null;
        }

        var steps = parts.PreTokenizer is SequencePreTokenizer sequence ? sequence.Steps : [parts.PreTokenizer];
        if (steps.Count == 0 || steps[^1] is not ByteLevelPreTokenizer { AddPrefixSpace: false } last || !steps.SkipLast(1).All(s => s is Cutter))
        {
            return null;
        }

        var cutters = steps.SkipLast(1).Cast<Cutter>().ToList();
        if (last.UseRegex)
        {
            cutters.Add(Gpt2Cutter.Instance);
        }

        return new ByteLevelPipeline(cutters, model);
    }

    public void Encode(ReadOnlySpan<char> text, List<int> ids)
    {
        List<TextRange> words = [new TextRange(0, text.Length)];
        var parts = new List<TextRange>();
        foreach (var cutter in _cutters)
        {
            var next = new List<TextRange>((text.Length / 4) + 1);
            foreach (var word in words)
            {
                if (word.Length == 0)
                {
                    continue;
                }

                parts.Clear();
                cutter.Cut(text.Slice(word.Start, word.Length), parts);
                foreach (var part in parts)
                {
                    next.Add(part with { Start = word.Start + part.Start });
                }
            }

            words = next;
        }

        foreach (var word in words)
        {
            if (word.Length > 0)
            {
                EncodeWord(text.Slice(word.Start, word.Length), ids);
            }
        }
    }

    private void EncodeWord(ReadOnlySpan<char> word, List<int> ids)
    {
        if (_cache.TryGet(word, out var known))
        {
            ids.AddRange(known);
            return;
        }

        var spelt = word.Length <= 128 ? stackalloc char[128 * 3] : new char[word.Length * 3];
        var tokens = new List<Token>();
        _model.Tokenize(spelt[..ByteLevelPreTokenizer.Spell(word, spelt)], tokens);
        int[] found = [.. tokens.Select(t => t.Id)];
        _cache.Set(word, found);
        ids.AddRange(found);
    }
}
