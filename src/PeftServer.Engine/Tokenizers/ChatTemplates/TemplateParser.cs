namespace PeftServer.Engine.Tokenizers.ChatTemplates;

/// <summary>Jinja's statements, as far as chat templates may use them.</summary>
internal sealed class TemplateParser
{
    private readonly TokenCursor _cursor;
    private readonly ExpressionParser _expressions;
    private int _loops;

    private TemplateParser(List<TemplateToken> tokens)
    {
        _cursor = new TokenCursor(tokens);
        _expressions = new ExpressionParser(_cursor);
    }

    /// <summary>The template has a <c>{% generation %}</c> block.</summary>
    public bool HasGenerationBlocks { get; private set; }

    public static (IReadOnlyList<Statement> Body, bool HasGenerationBlocks) Parse(string source)
    {
        var parser = new TemplateParser(Lexer.Tokenize(source));
        var body = parser.ParseBody(out _);
        return (body, parser.HasGenerationBlocks);
    }

    /// <summary>Statements up to one of the tags <paramref name="ends"/>, whose name is consumed; or, without any, to the end.</summary>
    private List<Statement> ParseBody(out string end, params ReadOnlySpan<string> ends)
    {
        using var nesting = _cursor.Enter();
        var body = new List<Statement>();
        while (true)
        {
            var token = _cursor.Next();
            switch (token.Kind)
            {
                case TokenKind.Data:
                    body.Add(new TextStatement(token.Text));
                    break;
                case TokenKind.PrintBegin:
                    body.Add(new PrintStatement(_expressions.ParseTuple()));
                    _cursor.Expect(TokenKind.PrintEnd);
                    break;
                case TokenKind.BlockBegin when _cursor.Current.Kind is TokenKind.Name && ends.Contains(_cursor.Current.Text):
                    end = _cursor.Next().Text;
                    return body;
                case TokenKind.BlockBegin:
                    body.Add(ParseTag());
                    break;
                case TokenKind.End when ends.IsEmpty:
                    end = "";
                    return body;
                default:
                    throw _cursor.Error($"the template ends before {{% {ends[^1]} %}}");
            }
        }
    }

    private Statement ParseTag()
    {
        var name = _cursor.ExpectName();
        return name switch
        {
            "if" => ParseIf(),
            "for" => ParseFor(),
            "set" => ParseSet(),
            "macro" => ParseMacro(),
            "call" => ParseCallBlock(),
            "filter" => ParseFilterBlock(),
            "with" => ParseWith(),
            "generation" => ParseGeneration(),
            "break" or "continue" => ParseLoopControl(name),
            "include" or "import" or "from" or "extends" or "block" =>
                throw _cursor.Error($"{{% {name} %}} reaches for other templates, which a chat template cannot"),
            _ => throw _cursor.Error($"unknown tag {{% {name} %}}"),
        };
    }

    private IfStatement ParseIf()
    {
        var branches = new List<(Expression Test, IReadOnlyList<Statement> Body)>();
        string end;
        do
        {
            var test = _expressions.ParseTuple(allowsConditional: false);
            _cursor.Expect(TokenKind.BlockEnd);
            branches.Add((test, ParseBody(out end, "elif", "else", "endif")));
        }
        while (end == "elif");

        IReadOnlyList<Statement> otherwise = [];
        if (end == "else")
        {
            _cursor.Expect(TokenKind.BlockEnd);
            otherwise = ParseBody(out _, "endif");
        }

        _cursor.Expect(TokenKind.BlockEnd);
        return new IfStatement(branches, otherwise);
    }

    private ForStatement ParseFor()
    {
        var target = ParseTarget(stop: "in");
        _cursor.ExpectName("in");
        var source = _expressions.ParseTuple(allowsConditional: false);
        var filter = _cursor.SkipName("if") ? _expressions.Parse() : null;
        var isRecursive = _cursor.SkipName("recursive");
        _cursor.Expect(TokenKind.BlockEnd);
        _loops++;
        var body = ParseBody(out var end, "else", "endfor");
        _loops--;
        IReadOnlyList<Statement> otherwise = [];
        if (end == "else")
        {
            _cursor.Expect(TokenKind.BlockEnd);
            otherwise = ParseBody(out _, "endfor");
        }

        _cursor.Expect(TokenKind.BlockEnd);
        return new ForStatement(target, source, filter, isRecursive, body, otherwise);
    }

    private Statement ParseSet()
    {
        var target = ParseTarget(stop: "=");
        if (_cursor.SkipOperator("="))
        {
            var value = _expressions.ParseTuple();
            _cursor.Expect(TokenKind.BlockEnd);
            return new SetStatement(target, value);
        }

        var filters = ParseFilters();
        _cursor.Expect(TokenKind.BlockEnd);
        var body = ParseBody(out _, "endset");
        _cursor.Expect(TokenKind.BlockEnd);
        return new CaptureStatement(target, filters, body);
    }

    private CaptureStatement ParseFilterBlock()
    {
        List<FilterExpression> filters = [_expressions.ParseFilter(null), .. ParseFilters()];
        _cursor.Expect(TokenKind.BlockEnd);
        var body = ParseBody(out _, "endfilter");
        _cursor.Expect(TokenKind.BlockEnd);
        return new CaptureStatement(null, filters, body);
    }

    private List<FilterExpression> ParseFilters()
    {
        var filters = new List<FilterExpression>();
        while (_cursor.SkipOperator("|"))
        {
            filters.Add(_expressions.ParseFilter(null));
        }

        return filters;
    }

    private WithStatement ParseWith()
    {
        var values = new List<(AssignmentTarget Target, Expression Value)>();
        while (_cursor.Current.Kind is not TokenKind.BlockEnd)
        {
            var target = ParseTarget(stop: "=");
            _cursor.ExpectOperator("=");
            values.Add((target, _expressions.Parse()));
            if (!_cursor.SkipOperator(","))
            {
                break;
            }
        }

        _cursor.Expect(TokenKind.BlockEnd);
        var body = ParseBody(out _, "endwith");
        _cursor.Expect(TokenKind.BlockEnd);
        return new WithStatement(values, body);
    }

    private MacroStatement ParseMacro()
    {
        var name = _cursor.ExpectName();
        var parameters = ParseParameters();
        return new MacroStatement(name, new MacroDefinition(parameters, ParseMacroBody("endmacro")));
    }

    private CallBlockStatement ParseCallBlock()
    {
        IReadOnlyList<(string Name, Expression? Default)> parameters = _cursor.IsOperator("(") ? ParseParameters() : [];
        var (target, arguments) = _expressions.ParseCall();
        return new CallBlockStatement(target, arguments, new MacroDefinition(parameters, ParseMacroBody("endcall")));
    }

    private List<(string Name, Expression? Default)> ParseParameters()
    {
        var parameters = new List<(string Name, Expression? Default)>();
        _cursor.ExpectOperator("(");
        while (!_cursor.IsOperator(")"))
        {
            var name = _cursor.ExpectName();
            parameters.Add((name, _cursor.SkipOperator("=") ? _expressions.Parse() : null));
            if (!_cursor.SkipOperator(","))
            {
                break;
            }
        }

        _cursor.ExpectOperator(")");
        return parameters;
    }

    private List<Statement> ParseMacroBody(string end)
    {
        _cursor.Expect(TokenKind.BlockEnd);
        var loops = _loops;
        _loops = 0; // a loop around the macro is not the macro's
        var body = ParseBody(out _, end);
        _loops = loops;
        _cursor.Expect(TokenKind.BlockEnd);
        return body;
    }

    private GenerationStatement ParseGeneration()
    {
        HasGenerationBlocks = true;
        _cursor.Expect(TokenKind.BlockEnd);
        var body = ParseBody(out _, "endgeneration");
        _cursor.Expect(TokenKind.BlockEnd);
        return new GenerationStatement(body);
    }

    private LoopControlStatement ParseLoopControl(string name)
    {
        if (_loops == 0)
        {
            throw _cursor.Error($"{{% {name} %}} stands outside of a loop");
        }

        _cursor.Expect(TokenKind.BlockEnd);
        return new LoopControlStatement(name == "break" ? Flow.Break : Flow.Continue);
    }

    private AssignmentTarget ParseTarget(string stop)
    {
        var parts = new List<AssignmentTarget>();
        var isTuple = false;
        do
        {
            if (parts.Count > 0 && (_cursor.IsName(stop) || _cursor.IsOperator(stop)))
            {
                break;
            }

            parts.Add(ParseOneTarget());
            isTuple |= _cursor.IsOperator(",");
        }
        while (_cursor.SkipOperator(","));

        return isTuple ? new AssignmentTarget(null, null, parts) : parts[0];
    }

    private AssignmentTarget ParseOneTarget()
    {
        using var nesting = _cursor.Enter();
        if (_cursor.SkipOperator("("))
        {
            var inner = ParseTarget(stop: ")");
            _cursor.ExpectOperator(")");
            return inner;
        }

        var name = _cursor.ExpectName();
        return new AssignmentTarget(name, _cursor.SkipOperator(".") ? _cursor.ExpectName() : null, null);
    }
}
