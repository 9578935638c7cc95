namespace PeftServer.Engine.Tokenizers.Patterns;

/// <summary>A string or a regular expression to look for: <c>{"String": …}</c> or <c>{"Regex": …}</c> in tokenizer.json.</summary>
internal sealed class TextPattern
{
    private readonly string? _literal;
    private readonly RegexPattern? _regex;

    private TextPattern(string? literal, RegexPattern? regex) => (_literal, _regex) = (literal, regex);

    public static TextPattern Literal(string text) => new(text, null);

    public static TextPattern Regex(string pattern) => new(null, new RegexPattern(pattern));

    public void FindAll(ReadOnlySpan<char> text, List<(int Start, int End)> matches)
    {
        if (_literal is not { Length: > 0 } literal)
        {
            _regex?.FindAll(text, matches);
            return;
        }

        for (var at = 0; text[at..].IndexOf(literal) is >= 0 and var found; at += found + literal.Length)
        {
            matches.Add((at + found, at + found + literal.Length));
        }
    }
}
