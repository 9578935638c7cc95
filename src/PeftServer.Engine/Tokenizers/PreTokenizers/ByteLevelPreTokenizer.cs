using System.Text;

namespace PeftServer.Engine.Tokenizers.PreTokenizers;

/// <summary>Cuts by GPT-2's pattern (unless told not to) and spells every byte with its stand-in of <see cref="ByteAlphabet"/>.</summary>
internal sealed class ByteLevelPreTokenizer(bool addPrefixSpace, bool useRegex) : PreTokenizer
{
    public bool AddPrefixSpace => addPrefixSpace;

    public bool UseRegex => useRegex;

    public override void Split(AlignedText text, List<AlignedText> words)
    {
        if (addPrefixSpace && !text.IsEmpty && text.Span[0] != ' ')
        {
            var edit = text.Edit();
            edit.InsertBefore(" ");
            text = edit.Finish();
        }

        if (!useRegex)
        {
            words.Add(Spell(text));
            return;
        }

        var cut = new List<AlignedText>();
        Gpt2Cutter.Instance.Split(text, cut);
        words.AddRange(cut.Select(Spell));
    }

    /// <summary>The bytes of <paramref name="text"/> in their printable spelling.</summary>
    public static AlignedText Spell(AlignedText text)
    {
        Span<char> spelt = stackalloc char[4];
        var edit = text.Edit();
        while (!edit.AtEnd)
        {
            Rune.DecodeFromUtf16(text.Span[edit.Position..], out var rune, out var consumed);
            edit.Replace(spelt[..Spell(rune, spelt)], consumed);
        }

        return edit.Finish();
    }

    /// <summary>Writes the spelling of <paramref name="text"/>; returns its length, which is at most three times as many characters.</summary>
    public static int Spell(ReadOnlySpan<char> text, Span<char> spelt)
    {
        var length = 0;
        foreach (var rune in text.EnumerateRunes())
        {
            length += Spell(rune, spelt[length..]);
        }

        return length;
    }

    private static int Spell(Rune rune, Span<char> spelt)
    {
        Span<byte> bytes = stackalloc byte[4];
        var count = rune.EncodeToUtf8(bytes);
        for (var i = 0; i < count; i++)
        {
            spelt[i] = ByteAlphabet.CharOf(bytes[i]);
        }

        return count;
    }
}

/// <summary>Cuts by GPT-2's pattern.</summary>
internal sealed class Gpt2Cutter : Cutter
{
    public static readonly Gpt2Cutter Instance = new();

    public override void Cut(ReadOnlySpan<char> text, List<TextRange> parts)
    {
        for (int at = 0, length; at < text.Length; at += length)
        {
            length = Gpt2Pattern.MatchLength(text[at..]);
            parts.Add(new TextRange(at, length));
        }
    }
}
