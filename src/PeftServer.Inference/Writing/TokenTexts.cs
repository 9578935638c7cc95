using System.Collections.Concurrent;
using PeftServer.Engine.Tokenizers;

namespace PeftServer.Inference.Writing;

/// <summary>Tokens by what they add to a text that they stand inside of: a space before a word is part of it.</summary>
internal sealed class TokenTexts(Tokenizer tokenizer)
{
    private readonly ConcurrentDictionary<int, string> _texts = [];

    public string this[int id] => _texts.GetOrAdd(id, Read);

    // Decoders treat the first token of a text differently, so it is decoded behind itself.
    private string Read(int id)
    {
        var alone = tokenizer.Decode([id], skipSpecialTokens: false);
        var twice = tokenizer.Decode([id, id], skipSpecialTokens: false);
        return twice.StartsWith(alone, StringComparison.Ordinal) && twice.Length > alone.Length ? twice[alone.Length..] : alone;
    }
}
