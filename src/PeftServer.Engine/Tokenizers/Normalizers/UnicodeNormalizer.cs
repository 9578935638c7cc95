using System.Collections.Concurrent;
using System.Text;
using PeftServer.Engine.Tokenizers.Unicode;

namespace PeftServer.Engine.Tokenizers.Normalizers;

/// <summary>
/// NFC, NFD, NFKC, NFKD (https://unicode.org/reports/tr15/), character by character, so that each knows where it came from:
/// a character that others were composed into stands for the first of them.
/// </summary>
internal sealed class UnicodeNormalizer(NormalizationForm form) : Normalizer
{
    private static readonly ConcurrentDictionary<(int, bool), string?> Decompositions = new();
    private static readonly ConcurrentDictionary<(int, int), int> Compositions = new();

    private readonly bool _compatible = form is NormalizationForm.FormKC or NormalizationForm.FormKD;
    private readonly bool _composes = form is NormalizationForm.FormC or NormalizationForm.FormKC;

    /// <summary>A character with how it relates to the text before: 0 replaces the next one, 1 is added, below 0 swallows more.</summary>
    private readonly record struct Part(int CodePoint, int Change);

    public override AlignedText Normalize(AlignedText text)
    {
        if (System.Text.Ascii.IsValid(text.Span) || IsNormalized(text))
        {
            return text;
        }

        var parts = Decompose(text);
        return Apply(text, _composes ? Compose(parts) : parts);
    }

    private bool IsNormalized(AlignedText text)
    {
        try
        {
            return _composes && text.ToString().IsNormalized(form);
        }
        catch (ArgumentException)
        {
            return false; // half a surrogate pair
        }
    }

    private List<Part> Decompose(AlignedText text)
    {
        var parts = new List<Part>(text.Length);
        var pending = 0; // where the marks begin that are still to be put in order
        for (int at = 0, length; at < text.Length; at += length)
        {
            Rune.DecodeFromUtf16(text.Span[at..], out var rune, out length);
            var decomposed = Decomposition(rune.Value);
            var change = 0;
            foreach (var part in decomposed is null ? [rune] : decomposed.EnumerateRunes().ToArray())
            {
                if (CombiningClasses.Of(part.Value) == 0)
                {
                    Reorder(parts, pending);
                    pending = parts.Count + 1;
                }

                parts.Add(new Part(part.Value, change));
                change = 1;
            }
        }

        Reorder(parts, pending);
        return parts;
    }

    private static void Reorder(List<Part> parts, int from)
    {
        if (parts.Count - from > 1)
        {
            var ordered = parts.Skip(from).OrderBy(p => CombiningClasses.Of(p.CodePoint)).ToList(); // stable
            parts.RemoveRange(from, parts.Count - from);
            parts.AddRange(ordered);
        }
    }

    private string? Decomposition(int codePoint) => codePoint < 0x80 ? null : Decompositions.GetOrAdd((codePoint, _compatible), static key =>
    {
        var text = Rune.IsValid(key.Item1) ? new Rune(key.Item1).ToString() : "\uFFFD";
        var decomposed = text.Normalize(key.Item2 ? NormalizationForm.FormKD : NormalizationForm.FormD);
        return decomposed == text ? null : decomposed;
    });

    private static List<Part> Compose(List<Part> parts)
    {
        var result = new List<Part>(parts.Count);
        var starter = -1; // index in result of the character that others may join
        var lastClass = -1; // class of the mark before, where it did not join
        foreach (var part in parts)
        {
            var combining = CombiningClasses.Of(part.CodePoint);
            if (starter >= 0 && (lastClass < 0 || lastClass < combining) && Composition(result[starter].CodePoint, part.CodePoint) is >= 0 and var composed)
            {
                result[starter] = new Part(composed, result[starter].Change + part.Change - 1);
                continue;
            }

            if (combining == 0)
            {
                (starter, lastClass) = (result.Count, -1);
            }
            else if (starter >= 0)
            {
                lastClass = combining;
            }

            result.Add(part);
        }

        return result;
    }

    /// <summary>The character that two compose to; −1 where they do not.</summary>
    private static int Composition(int first, int second)
    {
        if (second < 0x300)
        {
            return -1;
        }

        return Compositions.GetOrAdd((first, second), static pair =>
        {
            if (!Rune.IsValid(pair.Item1) || !Rune.IsValid(pair.Item2))
            {
                return -1;
            }

            var composed = $"{new Rune(pair.Item1)}{new Rune(pair.Item2)}".Normalize(NormalizationForm.FormC);
            var rune = composed.EnumerateRunes().First();
            return rune.Utf16SequenceLength == composed.Length ? rune.Value : -1;
        });
    }

    private static AlignedText Apply(AlignedText text, List<Part> parts)
    {
        Span<char> buffer = stackalloc char[2];
        var edit = text.Edit();
        foreach (var part in parts)
        {
            var encoded = buffer[..new Rune(part.CodePoint).EncodeToUtf16(buffer)];
            if (part.Change > 0)
            {
                edit.Insert(encoded);
                continue;
            }

            edit.Replace(encoded, edit.NextLength());
            for (var more = part.Change; more < 0; more++)
            {
                edit.Skip(edit.NextLength());
            }
        }

        return edit.Finish();
    }
}
