namespace PeftServer.Engine.Tokenizers.ChatTemplates;

/// <summary>How a statement ended: whether the loop around it goes on.</summary>
internal enum Flow
{
    Next,
    Break,
    Continue,
}

/// <summary>A part of a template that writes text or sets names.</summary>
internal abstract class Statement
{
    public abstract Flow Execute(Scope scope);

    public static Flow Run(IReadOnlyList<Statement> body, Scope scope)
    {
        foreach (var statement in body)
        {
            scope.State.Step();
            if (statement.Execute(scope) is not Flow.Next and var flow)
            {
                return flow;
            }
        }

        return Flow.Next;
    }
}

internal sealed class TextStatement(string text) : Statement
{
    public override Flow Execute(Scope scope)
    {
        scope.State.Write(TextValue.Own(text));
        return Flow.Next;
    }
}

internal sealed class PrintStatement(Expression value) : Statement
{
    public override Flow Execute(Scope scope)
    {
        scope.State.Write(PythonText.Str(value.Evaluate(scope)));
        return Flow.Next;
    }
}

internal sealed class IfStatement(IReadOnlyList<(Expression Test, IReadOnlyList<Statement> Body)> branches, IReadOnlyList<Statement> otherwise) : Statement
{
    public override Flow Execute(Scope scope)
    {
        foreach (var (test, body) in branches)
        {
            if (Operators.IsTrue(test.Evaluate(scope)))
            {
                return Run(body, scope);
            }
        }

        return Run(otherwise, scope);
    }
}

/// <summary>Where a value goes: names, an attribute of a namespace, or several of them.</summary>
internal sealed class AssignmentTarget(string? name, string? attribute, IReadOnlyList<AssignmentTarget>? parts)
{
    public void Assign(object? value, Scope scope)
    {
        if (parts is null)
        {
            AssignOne(value, scope);
            return;
        }

        var values = Operators.Iterate(value, scope.State).ToList();
        if (values.Count != parts.Count)
        {
            throw new TemplateException($"cannot unpack {values.Count} values into {parts.Count} names");
        }

        for (var i = 0; i < parts.Count; i++)
        {
            parts[i].Assign(values[i], scope);
        }
    }

    private void AssignOne(object? value, Scope scope)
    {
        if (attribute is null)
        {
            scope.Set(name!, value);
        }
        else if (scope.TryGet(name!, out var target) && target is NamespaceValue space)
        {
            space.Attributes[attribute] = value;
        }
        else
        {
            throw new TemplateException("cannot assign attribute on non-namespace object");
        }
    }
}

internal sealed class SetStatement(AssignmentTarget target, Expression value) : Statement
{
    public override Flow Execute(Scope scope)
    {
        target.Assign(value.Evaluate(scope), scope);
        return Flow.Next;
    }
}

/// <summary><c>{% set x %} … {% endset %}</c>, <c>{% filter f %} … {% endfilter %}</c>: a body that becomes a value.</summary>
internal sealed class CaptureStatement(AssignmentTarget? target, IReadOnlyList<FilterExpression> filters, IReadOnlyList<Statement> body) : Statement
{
    public override Flow Execute(Scope scope)
    {
        object? value = scope.State.Capture(() => Run(body, scope.Child()));
        foreach (var filter in filters)
        {
            value = filter.Apply(value, scope);
        }

        if (target is null)
        {
            scope.State.Write(PythonText.Str(value));
        }
        else
        {
            target.Assign(value, scope);
        }

        return Flow.Next;
    }
}

internal sealed class WithStatement(IReadOnlyList<(AssignmentTarget Target, Expression Value)> values, IReadOnlyList<Statement> body) : Statement
{
    public override Flow Execute(Scope scope)
    {
        var inner = scope.Child();
        foreach (var (target, value) in values)
        {
            target.Assign(value.Evaluate(scope), inner);
        }

        return Run(body, inner);
    }
}

/// <summary><c>{% generation %}</c>: what stands in it is what the assistant says.</summary>
internal sealed class GenerationStatement(IReadOnlyList<Statement> body) : Statement
{
    public override Flow Execute(Scope scope)
    {
        var flow = Flow.Next;
        var text = scope.State.Capture(() => flow = Run(body, scope.Child()));
        scope.State.Write(text.AsGenerated());
        return flow;
    }
}

internal sealed class LoopControlStatement(Flow flow) : Statement
{
    public override Flow Execute(Scope scope) => flow;
}

internal sealed class ForStatement(
    AssignmentTarget target,
    Expression source,
    Expression? filter,
    bool isRecursive,
    IReadOnlyList<Statement> body,
    IReadOnlyList<Statement> otherwise) : Statement
{
    public override Flow Execute(Scope scope)
    {
        Loop(source.Evaluate(scope), scope, depth: 0);
        return Flow.Next;
    }

    private void Loop(object? values, Scope scope, int depth)
    {
        var items = Operators.Iterate(values, scope.State).Where(v => Passes(v, scope)).ToList();
        if (items.Count == 0)
        {
            Run(otherwise, scope.Child());
            return;
        }

        var loop = new LoopValue(items, depth, isRecursive ? inner => scope.State.Capture(() => Loop(inner, scope, depth + 1)) : null);
        for (loop.Index = 0; loop.Index < items.Count; loop.Index++)
        {
            scope.State.Step();
            var iteration = scope.Child();
            iteration.Set("loop", loop);
            target.Assign(items[loop.Index], iteration);
            if (Run(body, iteration) is Flow.Break)
            {
                return;
            }
        }
    }

    private bool Passes(object? value, Scope scope)
    {
        if (filter is null)
        {
            return true;
        }

        var trial = scope.Child();
        target.Assign(value, trial);
        return Operators.IsTrue(filter.Evaluate(trial));
    }
}

internal sealed class MacroStatement(string name, MacroDefinition definition) : Statement
{
    public override Flow Execute(Scope scope)
    {
        scope.Set(name, new MacroValue(name, definition, scope));
        return Flow.Next;
    }
}

/// <summary><c>{% call macro() %} … {% endcall %}</c>: the body is what the macro gets by calling <c>caller()</c>.</summary>
internal sealed class CallBlockStatement(Expression target, ArgumentList arguments, MacroDefinition body) : Statement
{
    public override Flow Execute(Scope scope)
    {
        if (target.Evaluate(scope) is not MacroValue macro)
        {
            throw new TemplateException("{% call %} needs a macro");
        }

        var given = arguments.Evaluate(scope);
        var named = new Dictionary<string, object?>(given.Named, StringComparer.Ordinal) { ["caller"] = new MacroValue("caller", body, scope) };
        scope.State.Write(PythonText.Str(macro.Call(new CallArguments(given.Positional, named), scope.State)));
        return Flow.Next;
    }
}
