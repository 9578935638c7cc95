namespace PeftServer.Engine.Tokenizers;

/// <summary>
/// Turns ids into text as they come. What <see cref="Push"/> returns never ends in half a character; all returned pieces and
/// <see cref="Flush"/> joined are the decoding of all ids. Belongs to one thread.
/// </summary>
public sealed class StreamingDecoder
{
    // An incomplete character is at most three bytes, a token each. Held longer, the bytes are broken for good.
    private const int LongestHold = 16;

    private readonly Tokenizer _tokenizer;
    private readonly bool _skipSpecialTokens;
    private readonly List<int> _window = []; // the tokens since the last emission, and before them one emission for context
    private string _emitted = ""; // what the context decodes to
    private int _context;

    internal StreamingDecoder(Tokenizer tokenizer, bool skipSpecialTokens) => (_tokenizer, _skipSpecialTokens) = (tokenizer, skipSpecialTokens);

    /// <summary>The text that <paramref name="id"/> completes; empty while a character is incomplete.</summary>
    public string Push(int id)
    {
        _window.Add(id);
        var text = Decode();
        return text.EndsWith('�') && _window.Count - _context < LongestHold ? "" : Emit(text);
    }

    /// <summary>What is left: the replacement character where the last character never became whole.</summary>
    public string Flush() => _window.Count == _context ? "" : Emit(Decode());

    private string Decode() => _tokenizer.Decode(System.Runtime.InteropServices.CollectionsMarshal.AsSpan(_window), _skipSpecialTokens);

    private string Emit(string text)
    {
        var common = text.StartsWith(_emitted, StringComparison.Ordinal) ? _emitted.Length : text.AsSpan().CommonPrefixLength(_emitted);
        var added = text[common..];
        if (added.Length == 0)
        {
            return added; // a token without text of its own (a skipped special token) leaves the context as it was
        }

        // The tokens of this emission are the context of the next: decoders treat the first token of a text differently.
        _window.RemoveRange(0, _context);
        _context = _window.Count;
        _emitted = Decode();
        return added;
    }
}
