namespace PeftServer.Engine.Tokenizers.ChatTemplates;

/// <summary>Reads the tokens of a template from front to back.</summary>
internal sealed class TokenCursor(List<TemplateToken> tokens)
{
    private int _at;

    public TemplateToken Current => tokens[_at];

    public TemplateToken Next()
    {
        var token = tokens[_at];
        _at = Math.Min(_at + 1, tokens.Count - 1);
        return token;
    }

    public bool IsOperator(string text) => Current.Kind is TokenKind.Operator && Current.Text == text;

    public bool IsName(string text) => Current.Kind is TokenKind.Name && Current.Text == text;

    public bool SkipOperator(string text)
    {
        var found = IsOperator(text);
        if (found)
        {
            Next();
        }

        return found;
    }

    public bool SkipName(string text)
    {
        var found = IsName(text);
        if (found)
        {
            Next();
        }

        return found;
    }

    public void ExpectOperator(string text)
    {
        if (!SkipOperator(text))
        {
            throw Error($"expected '{text}', got {Describe()}");
        }
    }

    public void ExpectName(string text)
    {
        if (!SkipName(text))
        {
            throw Error($"expected '{text}', got {Describe()}");
        }
    }

    public string ExpectName() => Current.Kind is TokenKind.Name ? Next().Text : throw Error($"expected a name, got {Describe()}");

    public void Expect(TokenKind kind)
    {
        if (Current.Kind != kind)
        {
            throw Error($"expected {kind}, got {Describe()}");
        }

        Next();
    }

    public TemplateException Error(string message) => new($"Line {Current.Line} of the chat template: {message}.") { Line = Current.Line };

    private string Describe() => Current.Kind switch
    {
        TokenKind.End => "the end of the template",
        TokenKind.BlockEnd => "the end of the tag",
        TokenKind.PrintEnd => "the end of the print tag",
        _ => $"'{Current.Text}'",
    };
}
