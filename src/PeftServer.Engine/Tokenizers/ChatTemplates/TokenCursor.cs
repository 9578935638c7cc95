namespace PeftServer.Engine.Tokenizers.ChatTemplates;

/// <summary>Reads the tokens of a template from front to back.</summary>
internal sealed class TokenCursor(List<TemplateToken> tokens)
{
    /// <summary>Levels that may lie in one another; how many a stack holds depends on the compiler.</summary>
    private const int MaxNesting = 2000;

    private int _at;
    private int _nesting;

    public TemplateToken Current => tokens[_at];

    public TemplateToken Next()
    {
        var token = tokens[_at];
        _at = Math.Min(_at + 1, tokens.Count - 1);
        return token;
    }

    /// <summary>One level deeper, until the result is disposed of. Throws where that is too deep.</summary>
    public Nesting Enter()
    {
        RenderState.CheckStack();
        return ++_nesting > MaxNesting ? throw Error($"statements or expressions lie more than {MaxNesting} deep in one another") : new Nesting(this);
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

    internal readonly ref struct Nesting(TokenCursor cursor)
    {
        public void Dispose() => cursor._nesting--;
    }
}
