using System.Text;

namespace PeftServer.Engine.Tokenizers.PreTokenizers;

/// <summary>Cuts by GPT-2's pattern (unless told not to) and spells every byte with its stand-in of <see cref="ByteAlphabet"/>.</summary>
internal sealed class ByteLevelPreTokenizer(bool addPrefixSpace, bool useRegex) : PreTokenizer
{
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

        for (var at = 0; at < text.Length;)
        {
            var length = Gpt2Pattern.MatchLength(text.Span[at..]);
            words.Add(Spell(text.Slice(at, length)));
            at += length;
        }
    }

    /// <summary>The bytes of <paramref name="text"/> in their printable spelling.</summary>
    public static AlignedText Spell(AlignedText text)
    {
        Span<byte> bytes = stackalloc byte[4];
        Span<char> spelt = stackalloc char[4];
        var edit = text.Edit();
        while (!edit.AtEnd)
        {
            Rune.DecodeFromUtf16(text.Span[edit.Position..], out var rune, out var consumed);
            var count = rune.EncodeToUtf8(bytes);
            for (var i = 0; i < count; i++)
            {
                spelt[i] = ByteAlphabet.CharOf(bytes[i]);
            }

            edit.Replace(spelt[..count], consumed);
        }

        return edit.Finish();
    }
}
