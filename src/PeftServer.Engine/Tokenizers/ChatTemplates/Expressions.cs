namespace PeftServer.Engine.Tokenizers.ChatTemplates;

/// <summary>A part of a template that has a value.</summary>
internal abstract class Expression
{
    public object? Evaluate(Scope scope)
    {
        scope.State.Step();
        return Compute(scope);
    }

    protected abstract object? Compute(Scope scope);
}

internal sealed class Literal(object? value) : Expression
{
    public object? Value => value;

    protected override object? Compute(Scope scope) => value;
}

internal sealed class NameExpression(string name) : Expression
{
    public string Name => name;

    protected override object? Compute(Scope scope) =>
        scope.TryGet(name, out var value) ? value : new UndefinedValue($"'{name}' is undefined");
}

internal sealed class ListExpression(IReadOnlyList<Expression> items, bool isTuple) : Expression
{
    public IReadOnlyList<Expression> Items => items;

    protected override object? Compute(Scope scope) => new ListValue([.. items.Select(i => i.Evaluate(scope))], isTuple);
}

internal sealed class DictExpression(IReadOnlyList<(Expression Key, Expression Value)> entries) : Expression
{
    protected override object? Compute(Scope scope)
    {
        var dict = new DictValue();
        foreach (var (key, value) in entries)
        {
            dict.Set(key.Evaluate(scope), value.Evaluate(scope));
        }

        return dict;
    }
}

internal sealed class AttributeExpression(Expression target, string name) : Expression
{
    protected override object? Compute(Scope scope) => Attributes.GetAttribute(target.Evaluate(scope), name);
}

internal sealed class ItemExpression(Expression target, Expression index) : Expression
{
    protected override object? Compute(Scope scope) => Attributes.GetItem(target.Evaluate(scope), index.Evaluate(scope), scope.State);
}

internal sealed class SliceExpression(Expression target, Expression? start, Expression? stop, Expression? step) : Expression
{
    protected override object? Compute(Scope scope) =>
        Attributes.Slice(target.Evaluate(scope), start?.Evaluate(scope), stop?.Evaluate(scope), step?.Evaluate(scope), scope.State);
}

internal sealed class CallExpression(Expression target, ArgumentList arguments) : Expression
{
    protected override object? Compute(Scope scope)
    {
        var callee = target.Evaluate(scope);
        return callee switch
        {
            CallableValue callable => callable.Call(arguments.Evaluate(scope), scope.State),
            UndefinedValue undefined => throw undefined.Error(),
            _ => throw new TemplateException($"'{PythonText.TypeName(callee)}' object is not callable"),
        };
    }
}

internal sealed class FilterExpression(Expression? input, string name, ArgumentList arguments) : Expression
{
    protected override object? Compute(Scope scope) =>
        Apply(input is null ? throw new TemplateException($"The filter {name} has nothing to work on.") : input.Evaluate(scope), scope);

    public object? Apply(object? value, Scope scope) => Filters.Apply(name, value, arguments.Evaluate(scope), scope.State);
}

internal sealed class TestExpression(Expression input, string name, ArgumentList arguments) : Expression
{
    protected override object? Compute(Scope scope) =>
        ValueTests.Apply(name, input.Evaluate(scope), arguments.Evaluate(scope), scope.State);
}

internal sealed class UnaryExpression(string op, Expression operand) : Expression
{
    protected override object? Compute(Scope scope)
    {
        var value = operand.Evaluate(scope);
        return op == "not" ? !Operators.IsTrue(value) : Operators.Sign(op, value);
    }
}

internal sealed class BinaryExpression(string op, Expression left, Expression right) : Expression
{
    protected override object? Compute(Scope scope) => Operators.Binary(op, left.Evaluate(scope), right.Evaluate(scope), scope.State);
}

/// <summary><c>and</c>, <c>or</c>: the value of the side that decides.</summary>
internal sealed class LogicExpression(bool isAnd, Expression left, Expression right) : Expression
{
    protected override object? Compute(Scope scope)
    {
        var value = left.Evaluate(scope);
        return Operators.IsTrue(value) == isAnd ? right.Evaluate(scope) : value;
    }
}

/// <summary>Comparisons, which chain as in Python: <c>a &lt; b &lt; c</c>.</summary>
internal sealed class CompareExpression(Expression first, IReadOnlyList<(string Op, Expression Right)> rest) : Expression
{
    protected override object? Compute(Scope scope)
    {
        var left = first.Evaluate(scope);
        foreach (var (op, expression) in rest)
        {
            var right = expression.Evaluate(scope);
            if (!Operators.Compare(op, left, right, scope.State))
            {
                return false;
            }

            left = right;
        }

        return true;
    }
}

internal sealed class ConditionalExpression(Expression test, Expression then, Expression? otherwise) : Expression
{
    protected override object? Compute(Scope scope) => Operators.IsTrue(test.Evaluate(scope)) ? then.Evaluate(scope)
        : otherwise is null ? new UndefinedValue("the inline if-expression evaluated to false and no else section was defined.")
        : otherwise.Evaluate(scope);
}

/// <summary>The arguments of a call, filter or test as they are written.</summary>
internal sealed class ArgumentList(
    IReadOnlyList<Expression> positional, IReadOnlyList<(string Name, Expression Value)> named, Expression? spread, Expression? namedSpread)
{
    public static readonly ArgumentList None = new([], [], null, null);

    public CallArguments Evaluate(Scope scope)
    {
        if (ReferenceEquals(this, None))
        {
            return CallArguments.None;
        }

        var values = positional.Select(p => p.Evaluate(scope)).ToList();
        if (spread is not null)
        {
            values.AddRange(Operators.Iterate(spread.Evaluate(scope), scope.State));
        }

        var names = new Dictionary<string, object?>(StringComparer.Ordinal);
        foreach (var (name, value) in named)
        {
            names[name] = value.Evaluate(scope);
        }

        if (namedSpread is not null && namedSpread.Evaluate(scope) is DictValue dict)
        {
            foreach (var (key, value) in dict.Entries)
            {
                names[PythonText.Str(key).Text] = value;
            }
        }

        return new CallArguments(values, names);
    }
}

/// <summary>The arguments of a call as values.</summary>
internal sealed class CallArguments(IReadOnlyList<object?> positional, IReadOnlyDictionary<string, object?> named)
{
    public static readonly CallArguments None = new([], new Dictionary<string, object?>());

    public IReadOnlyList<object?> Positional => positional;

    public IReadOnlyDictionary<string, object?> Named => named;

    public static CallArguments Of(params object?[] values) => new(values, new Dictionary<string, object?>());

    public bool Has(int index, string name) => index < positional.Count || named.ContainsKey(name);

    public object? Get(int index, string name, object? orElse = null) =>
        index >= 0 && index < positional.Count ? positional[index] : named.GetValueOrDefault(name, orElse);

    public object? Require(int index, string name) =>
        Has(index, name) ? Get(index, name) : throw new TemplateException($"missing the argument '{name}'");

    public long Integer(int index, string name, long orElse) => Get(index, name, orElse) switch
    {
        long n => n,
        bool b => b ? 1 : 0,
        var other => throw new TemplateException($"{name} must be an integer, not {PythonText.TypeName(other)}"),
    };

    public TextValue Text(int index, string name, string orElse) => PythonText.Str(Get(index, name, TextValue.Own(orElse)));
}
