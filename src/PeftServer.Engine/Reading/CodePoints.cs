using System.Text;

namespace PeftServer.Engine.Reading;

/// <summary>Texts by their code points, which is what a tokenizer's offsets count.</summary>
internal static class CodePoints
{
    /// <summary>The part of a text from one code point up to another.</summary>
    public static string Part(string text, int from, int to)
    {
        var part = new StringBuilder();
        foreach (var rune in text.EnumerateRunes().Skip(from).Take(to - from))
        {
            part.Append(rune);
        }

        return part.ToString();
    }
}
