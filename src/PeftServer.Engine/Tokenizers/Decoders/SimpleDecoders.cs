using System.Globalization;
using System.Text;
using PeftServer.Engine.Tokenizers.Patterns;
using PeftServer.Engine.Tokenizers.PreTokenizers;

namespace PeftServer.Engine.Tokenizers.Decoders;

/// <summary>The mark of a word's end becomes a space, except at the end of the text.</summary>
internal sealed class BpeDecoder(string suffix) : Decoder
{
    public override List<string> Decode(List<string> tokens) =>
        suffix.Length == 0 ? tokens : [.. tokens.Select((t, i) => t.Replace(suffix, i == tokens.Count - 1 ? "" : " ", StringComparison.Ordinal))];
}

/// <summary>Tokens that spell a byte become bytes, and runs of them text; a run that is no text becomes a replacement character a byte.</summary>
internal sealed class ByteFallbackDecoder : Decoder
{
    private static readonly UTF8Encoding Strict = new(encoderShouldEmitUTF8Identifier: false, throwOnInvalidBytes: true);

    public override List<string> Decode(List<string> tokens)
    {
        var result = new List<string>(tokens.Count);
        var bytes = new List<byte>();
        foreach (var token in tokens)
        {
            if (token.Length == 6 && token.StartsWith("<0x", StringComparison.Ordinal) && token[5] == '>'
                && byte.TryParse(token.AsSpan(3, 2), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out var value))
            {
                bytes.Add(value);
                continue;
            }

            Flush(bytes, result);
            result.Add(token);
        }

        Flush(bytes, result);
        return result;
    }

    private static void Flush(List<byte> bytes, List<string> result)
    {
        if (bytes.Count == 0)
        {
            return;
        }

        try
        {
            result.Add(Strict.GetString([.. bytes]));
        }
        catch (DecoderFallbackException)
        {
            result.AddRange(Enumerable.Repeat("\uFFFD", bytes.Count));
        }

        bytes.Clear();
    }
}

/// <summary>All tokens become one.</summary>
internal sealed class FuseDecoder : Decoder
{
    public override List<string> Decode(List<string> tokens) => [string.Concat(tokens)];
}

/// <summary>Takes up to so many of a character off the ends of each token.</summary>
internal sealed class StripDecoder(string content, int start, int stop) : Decoder
{
    public override List<string> Decode(List<string> tokens) => [.. tokens.Select(Strip)];

    private string Strip(string token)
    {
        var (from, to) = (0, token.Length);
        for (var i = 0; i < start && token.AsSpan(from, to - from).StartsWith(content); i++)
        {
            from += content.Length;
        }

        for (var i = 0; i < stop && token.AsSpan(from, to - from).EndsWith(content); i++)
        {
            to -= content.Length;
        }

        return token[from..to];
    }
}

/// <summary>Replaces what matches a pattern in each token.</summary>
internal sealed class ReplaceDecoder(TextPattern pattern, string replacement) : Decoder
{
    public override List<string> Decode(List<string> tokens) => [.. tokens.Select(Replace)];

    private string Replace(string token)
    {
        var matches = new List<(int Start, int End)>();
        pattern.FindAll(token, matches);
        if (matches.Count == 0)
        {
            return token;
        }

        var result = new StringBuilder();
        var done = 0;
        foreach (var (start, end) in matches)
        {
            result.Append(token, done, start - done).Append(replacement);
            done = end;
        }

        return result.Append(token, done, token.Length - done).ToString();
    }
}

/// <summary>The visible space becomes a space, except where the first token begins the text with it.</summary>
internal sealed class MetaspaceDecoder(char replacement, PrependScheme scheme) : Decoder
{
    public override List<string> Decode(List<string> tokens) => [.. tokens.Select((t, i) =>
        t.Replace(replacement.ToString(), i == 0 && scheme is not PrependScheme.Never ? "" : " ", StringComparison.Ordinal))];
}

/// <summary>Puts word pieces together; with clean-up, English punctuation moves to where people write it.</summary>
internal sealed class WordPieceDecoder(string prefix, bool cleanup) : Decoder
{
    public override List<string> Decode(List<string> tokens) => [.. tokens.Select((t, i) =>
    {
        var text = i == 0 ? t : t.StartsWith(prefix, StringComparison.Ordinal) ? t[prefix.Length..] : $" {t}";
        return cleanup ? CleanUp(text) : text;
    })];

    internal static string CleanUp(string text) => new StringBuilder(text)
        .Replace(" .", ".").Replace(" ?", "?").Replace(" !", "!").Replace(" ,", ",").Replace(" ' ", "'").Replace(" n't", "n't")
        .Replace(" 'm", "'m").Replace(" do not", " don't").Replace(" 's", "'s").Replace(" 've", "'ve").Replace(" 're", "'re").ToString();
}

/// <summary>Connectionist temporal classification: repeated tokens count once, padding is silence.</summary>
internal sealed class CtcDecoder(string padToken, string wordDelimiter, bool cleanup) : Decoder
{
    public override List<string> Decode(List<string> tokens)
    {
        var result = new List<string>();
        for (var i = 0; i < tokens.Count; i++)
        {
            if (i > 0 && tokens[i] == tokens[i - 1])
            {
                continue;
            }

            var text = padToken.Length == 0 ? tokens[i] : tokens[i].Replace(padToken, "", StringComparison.Ordinal);
            if (cleanup)
            {
                text = WordPieceDecoder.CleanUp(text);
                text = wordDelimiter.Length == 0 ? text : text.Replace(wordDelimiter, " ", StringComparison.Ordinal);
            }

            if (text.Length > 0)
            {
                result.Add(text);
            }
        }

        return result;
    }
}
