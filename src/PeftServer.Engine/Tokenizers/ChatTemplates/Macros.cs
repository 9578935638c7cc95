namespace PeftServer.Engine.Tokenizers.ChatTemplates;

internal sealed record MacroDefinition(IReadOnlyList<(string Name, Expression? Default)> Parameters, IReadOnlyList<Statement> Body);

/// <summary>A macro with the scope that it was defined in.</summary>
internal sealed class MacroValue(string name, MacroDefinition definition, Scope home) : CallableValue, IAttributes
{
    public override object? Call(CallArguments arguments, RenderState state)
    {
        var scope = home.Child();
        for (var i = 0; i < definition.Parameters.Count; i++)
        {
            var (parameter, orElse) = definition.Parameters[i];
            scope.Set(parameter, arguments.Has(i, parameter) ? arguments.Get(i, parameter)
                : orElse is null ? new UndefinedValue($"parameter '{parameter}' was not provided")
                : orElse.Evaluate(scope));
        }

        scope.Set("varargs", new ListValue([.. arguments.Positional.Skip(definition.Parameters.Count)], isTuple: true));
        scope.Set("kwargs", Rest(arguments));
        if (arguments.Named.TryGetValue("caller", out var caller))
        {
            scope.Set("caller", caller);
        }

        using var depth = state.Enter();
        return state.Capture(() => Statement.Run(definition.Body, scope));
    }

    public bool TryGetAttribute(string attribute, out object? value)
    {
        value = attribute == "name" ? TextValue.Own(name) : null;
        return value is not null;
    }

    private DictValue Rest(CallArguments arguments)
    {
        var rest = new DictValue();
        foreach (var (argument, value) in arguments.Named)
        {
            if (argument != "caller" && definition.Parameters.All(p => p.Name != argument))
            {
                rest.Set(TextValue.Own(argument), value);
            }
        }

        return rest;
    }
}
