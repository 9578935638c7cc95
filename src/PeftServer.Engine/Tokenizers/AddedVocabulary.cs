using System.Text;
using PeftServer.Engine.Tokenizers.Unicode;

namespace PeftServer.Engine.Tokenizers;

/// <summary>
/// Finds added tokens in a text: the leftmost, and of those the longest, first in the raw text, then (those with
/// <see cref="AddedToken.Normalized"/>) in the normalised text between them.
/// </summary>
internal sealed class AddedVocabulary
{
    private readonly Dictionary<int, AddedToken> _byId = [];
    private readonly Dictionary<string, AddedToken> _byContent = new(StringComparer.Ordinal);
    private readonly Dictionary<int, string> _normalizedForms = [];
    private readonly HashSet<string> _special = new(StringComparer.Ordinal);
    private readonly CharTrie<AddedToken> _raw = new();
    private readonly CharTrie<AddedToken> _normalized = new();

    public AddedVocabulary(IEnumerable<AddedToken> tokens, Func<string, string>? normalize)
    {
        foreach (var token in tokens)
        {
            if (_byContent.TryGetValue(token.Content, out var earlier) && earlier.Id != token.Id)
            {
                _byId.Remove(earlier.Id);
            }

            _byId[token.Id] = token;
            _byContent[token.Content] = token;
            if (token.Special)
            {
                _special.Add(token.Content);
            }
        }

        foreach (var token in _byId.Values)
        {
            if (!token.Normalized)
            {
                _raw.Add(token.Content, token);
                continue;
            }

            var form = normalize?.Invoke(token.Content) ?? token.Content;
            if (form != token.Content)
            {
                _normalizedForms[token.Id] = form;
            }

            _normalized.Add(form, token);
        }
    }

    public IReadOnlyCollection<AddedToken> Tokens => _byId.Values;

    public AddedToken? Find(int id) => _byId.GetValueOrDefault(id);

    public AddedToken? Find(string content) => _byContent.GetValueOrDefault(content);

    public bool IsSpecial(string content) => _special.Contains(content);

    /// <summary>The form that decoders work on: what the normaliser makes of the content where the token is matched normalised.</summary>
    public string? DecodedForm(int id) =>
        _normalizedForms.GetValueOrDefault(id) ?? _byId.GetValueOrDefault(id)?.Content;

    /// <summary>
    /// Cuts <paramref name="text"/> at added tokens. <paramref name="mayMatch"/> decides, by position in the original, whether
    /// a special token may match there.
    /// </summary>
    public void Split(AlignedText text, Func<AlignedText, AlignedText>? normalize, Func<int, int, bool>? mayMatch, List<TextPiece> pieces)
    {
        var first = new List<TextPiece>();
        Cut(text, _raw, mayMatch, first);
        foreach (var piece in first)
        {
            if (piece.Token is not null)
            {
                pieces.Add(piece);
                continue;
            }

            Cut(normalize?.Invoke(piece.Text) ?? piece.Text, _normalized, mayMatch, pieces);
        }
    }

    private static void Cut(AlignedText text, CharTrie<AddedToken> trie, Func<int, int, bool>? mayMatch, List<TextPiece> pieces)
    {
        var span = text.Span;
        var done = 0; // everything before this is in a piece
        for (var at = 0; trie.FindNext(span, at, out var start, out var end, out var token); at = end)
        {
            if (token.Special && mayMatch is not null)
            {
                var (from, to) = text.Cover(start, end);
                if (!mayMatch(from, to))
                {
                    // Only this occurrence is text: another token may begin inside it.
                    end = start + 1;
                    continue;
                }
            }

            if (token.SingleWord && ((start > 0 && EndsWithWord(span[..start])) || (end < span.Length && StartsWithWord(span[end..]))))
            {
                continue;
            }

            if (token.Lstrip)
            {
                start = Math.Max(span[..start].TrimEnd().Length, done);
            }

            var next = end;
            if (token.Rstrip)
            {
                next = span.Length - span[end..].TrimStart().Length;
            }

            if (done < start)
            {
                pieces.Add(new TextPiece(text.Slice(done, start - done), null));
            }

            start = Math.Max(start, Math.Min(done, next));
            pieces.Add(new TextPiece(text.Slice(start, next - start), token));
            done = next;
        }

        if (done < span.Length)
        {
            pieces.Add(new TextPiece(text.Slice(done, span.Length - done), null));
        }
    }

    private static bool EndsWithWord(ReadOnlySpan<char> text)
    {
        Rune.DecodeLastFromUtf16(text, out var rune, out _);
        return IsWord(rune);
    }

    private static bool StartsWithWord(ReadOnlySpan<char> text)
    {
        Rune.DecodeFromUtf16(text, out var rune, out _);
        return IsWord(rune);
    }

    // Rust's \w: joiners count as well.
    private static bool IsWord(Rune rune) => UnicodeClasses.IsWord(rune.Value) || rune.Value is 0x200C or 0x200D;
}

/// <summary>A stretch of text on its way through the pipeline; with a token it is done.</summary>
internal readonly record struct TextPiece(AlignedText Text, AddedToken? Token);
