namespace PeftServer.Engine.Tokenizers.ChatTemplates;

/// <summary>Jinja's expressions, a method a level of precedence.</summary>
internal sealed partial class ExpressionParser(TokenCursor cursor)
{
    private static readonly string[] Comparisons = ["==", "!=", "<", "<=", ">", ">="];

    public Expression Parse() => ParseConditional();

    /// <summary>One expression, or several with commas between them, which make a tuple.</summary>
    public Expression ParseTuple(bool allowsConditional = true, bool inBrackets = false)
    {
        var items = new List<Expression>();
        var isTuple = false;
        while (!AtTupleEnd())
        {
            items.Add(allowsConditional ? ParseConditional() : ParseOr());
            if (!cursor.SkipOperator(","))
            {
                break;
            }

            isTuple = true;
        }

        return items switch
        {
            [var only] when !isTuple => only,
            [] when !inBrackets => throw cursor.Error("expected an expression"),
            _ => new ListExpression(items, isTuple: true),
        };
    }

    public FilterExpression ParseFilter(Expression? input)
    {
        var name = ParseDottedName();
        if (!Filters.Exists(name))
        {
            throw cursor.Error($"there is no filter '{name}'");
        }

        return new FilterExpression(input, name, cursor.IsOperator("(") ? ParseArguments() : ArgumentList.None);
    }

    public ArgumentList ParseArguments()
    {
        cursor.ExpectOperator("(");
        var positional = new List<Expression>();
        var named = new List<(string Name, Expression Value)>();
        Expression? spread = null;
        Expression? namedSpread = null;
        while (!cursor.IsOperator(")"))
        {
            if (cursor.SkipOperator("*"))
            {
                spread = Parse();
            }
            else if (cursor.SkipOperator("**"))
            {
                namedSpread = Parse();
            }
            else
            {
                var value = Parse();
                if (value is NameExpression name && cursor.SkipOperator("="))
                {
                    named.Add((name.Name, Parse()));
                }
                else if (named.Count > 0)
                {
                    throw cursor.Error("a positional argument follows a named one");
                }
                else
                {
                    positional.Add(value);
                }
            }

            if (!cursor.SkipOperator(","))
            {
                break;
            }
        }

        cursor.ExpectOperator(")");
        return new ArgumentList(positional, named, spread, namedSpread);
    }

    /// <summary>Without calls and filters at its end: what a call block calls.</summary>
    public (Expression Target, ArgumentList Arguments) ParseCall()
    {
        Expression target = new NameExpression(cursor.ExpectName());
        while (cursor.SkipOperator("."))
        {
            target = new AttributeExpression(target, cursor.ExpectName());
        }

        return (target, ParseArguments());
    }

    private bool AtTupleEnd() => cursor.Current.Kind is TokenKind.PrintEnd or TokenKind.BlockEnd or TokenKind.End
        || cursor.IsOperator(")") || cursor.IsOperator("]") || cursor.IsName("recursive");

    private Expression ParseConditional()
    {
        using var nesting = cursor.Enter();
        var value = ParseOr();
        while (cursor.SkipName("if"))
        {
            var test = ParseOr();
            value = new ConditionalExpression(test, value, cursor.SkipName("else") ? ParseConditional() : null);
        }

        return value;
    }

    private Expression ParseOr()
    {
        var left = ParseAnd();
        while (cursor.SkipName("or"))
        {
            left = new LogicExpression(isAnd: false, left, ParseAnd());
        }

        return left;
    }

    private Expression ParseAnd()
    {
        var left = ParseNot();
        while (cursor.SkipName("and"))
        {
            left = new LogicExpression(isAnd: true, left, ParseNot());
        }

        return left;
    }

    private Expression ParseNot()
    {
        using var nesting = cursor.Enter();
        return cursor.SkipName("not") ? new UnaryExpression("not", ParseNot()) : ParseCompare();
    }

    private Expression ParseCompare()
    {
        var first = ParseSum();
        var rest = new List<(string Op, Expression Right)>();
        while (true)
        {
            if (cursor.Current.Kind is TokenKind.Operator && Comparisons.Contains(cursor.Current.Text))
            {
                rest.Add((cursor.Next().Text, ParseSum()));
            }
            else if (cursor.SkipName("in"))
            {
                rest.Add(("in", ParseSum()));
            }
            else if (cursor.IsName("not"))
            {
                cursor.Next();
                cursor.ExpectName("in");
                rest.Add(("not in", ParseSum()));
            }
            else
            {
                return rest.Count == 0 ? first : new CompareExpression(first, rest);
            }
        }
    }

    private Expression ParseSum()
    {
        var left = ParseConcat();
        while (cursor.IsOperator("+") || cursor.IsOperator("-"))
        {
            left = new BinaryExpression(cursor.Next().Text, left, ParseConcat());
        }

        return left;
    }

    private Expression ParseConcat()
    {
        var left = ParseProduct();
        while (cursor.SkipOperator("~"))
        {
            left = new BinaryExpression("~", left, ParseProduct());
        }

        return left;
    }

    private Expression ParseProduct()
    {
        var left = ParsePower();
        while (cursor.Current.Kind is TokenKind.Operator && cursor.Current.Text is "*" or "/" or "//" or "%")
        {
            left = new BinaryExpression(cursor.Next().Text, left, ParsePower());
        }

        return left;
    }

    private Expression ParsePower()
    {
        var left = ParseUnary();
        while (cursor.SkipOperator("**"))
        {
            left = new BinaryExpression("**", left, ParseUnary());
        }

        return left;
    }

    private Expression ParseUnary(bool withFilters = true)
    {
        using var nesting = cursor.Enter();
        var value = cursor.SkipOperator("-") ? new UnaryExpression("-", ParseUnary(withFilters: false))
            : cursor.SkipOperator("+") ? new UnaryExpression("+", ParseUnary(withFilters: false))
            : ParsePrimary();
        value = ParsePostfix(value);
        return withFilters ? ParseFiltersAndTests(value) : value;
    }

    private Expression ParsePostfix(Expression value)
    {
        while (true)
        {
            if (cursor.SkipOperator("."))
            {
                value = ParseAfterDot(value);
            }
            else if (cursor.SkipOperator("["))
            {
                value = ParseSubscript(value);
                cursor.ExpectOperator("]");
            }
            else if (cursor.IsOperator("("))
            {
                value = new CallExpression(value, ParseArguments());
            }
            else
            {
                return value;
            }
        }
    }

    private Expression ParseAfterDot(Expression value) => cursor.Current.Kind is TokenKind.Integer
        ? new ItemExpression(value, ParsePrimary())
        : new AttributeExpression(value, cursor.ExpectName());

    private Expression ParseSubscript(Expression value)
    {
        var start = cursor.IsOperator(":") ? null : ParseTuple();
        if (!cursor.SkipOperator(":"))
        {
            return new ItemExpression(value, start!);
        }

        var stop = cursor.IsOperator(":") || cursor.IsOperator("]") ? null : Parse();
        var step = cursor.SkipOperator(":") && !cursor.IsOperator("]") ? Parse() : null;
        return new SliceExpression(value, start, stop, step);
    }

    private Expression ParseFiltersAndTests(Expression value)
    {
        while (true)
        {
            if (cursor.SkipOperator("|"))
            {
                value = ParseFilter(value);
            }
            else if (cursor.SkipName("is"))
            {
                value = ParseTest(value);
            }
            else if (cursor.IsOperator("("))
            {
                value = new CallExpression(value, ParseArguments());
            }
            else
            {
                return value;
            }
        }
    }

    private Expression ParseTest(Expression value)
    {
        var negated = cursor.SkipName("not");
        var name = ParseDottedName();
        if (!ValueTests.Exists(name))
        {
            throw cursor.Error($"there is no test '{name}'");
        }

        var arguments = ArgumentList.None;
        if (cursor.IsOperator("("))
        {
            arguments = ParseArguments();
        }
        else if (StartsOperand() && !cursor.IsName("else") && !cursor.IsName("or") && !cursor.IsName("and"))
        {
            arguments = new ArgumentList([ParsePostfix(ParsePrimary())], [], null, null);
        }

        Expression test = new TestExpression(value, name, arguments);
        return negated ? new UnaryExpression("not", test) : test;
    }

    // "x is defined if y": the word after the test is an argument unless it goes on with the expression around it.
    private bool StartsOperand() =>
        cursor.Current.Kind is TokenKind.String or TokenKind.Integer or TokenKind.Float
        || (cursor.Current.Kind is TokenKind.Name && !cursor.IsName("is") && !cursor.IsName("if") && !cursor.IsName("in") && !cursor.IsName("not"))
        || cursor.IsOperator("[") || cursor.IsOperator("{");

    private string ParseDottedName()
    {
        var name = cursor.ExpectName();
        while (cursor.SkipOperator("."))
        {
            name += "." + cursor.ExpectName();
        }

        return name;
    }
}
