namespace PeftServer.Engine.Tokenizers.ChatTemplates;

/// <summary>Python's methods of <c>dict</c>, those that change nothing.</summary>
internal static class DictMethods
{
    public static FunctionValue? Find(DictValue dict, string name) => name switch
    {
        "get" => new(name, (a, _) => dict.TryGet(a.Require(0, "key"), out var value) ? value : a.Get(1, "default")),
        "items" => new(name, (_, s) => Items(dict, s)),
        "keys" => new(name, (_, s) => List(dict.Entries.Select(e => e.Key), dict.Count, s)),
        "values" => new(name, (_, s) => List(dict.Entries.Select(e => e.Value), dict.Count, s)),
        "copy" => new(name, (_, _) => dict),
        "clear" or "pop" or "popitem" or "setdefault" or "update" =>
            new(name, (_, _) => throw new TemplateException($"access to attribute '{name}' of 'dict' object is unsafe.")),
        _ => null,
    };

    public static ListValue Items(DictValue dict, RenderState state) =>
        List(dict.Entries.Select(object? (e) => new ListValue([e.Key, e.Value], isTuple: true)), dict.Count, state);

    private static ListValue List(IEnumerable<object?> items, int count, RenderState state)
    {
        state.Step(count);
        return new ListValue([.. items]);
    }
}

/// <summary>Python's methods of <c>list</c>, those that change nothing.</summary>
internal static class ListMethods
{
    public static FunctionValue? Find(ListValue list, string name) => name switch
    {
        "index" => new(name, (a, s) => Index(list, a.Require(0, "value"), s)),
        "count" => new(name, (a, s) => Operators.Iterate(list, s).LongCount(i => Operators.AreEqual(i, a.Require(0, "value")))),
        "copy" when !list.IsTuple => new(name, (_, _) => list),
        "append" or "clear" or "extend" or "insert" or "pop" or "remove" or "reverse" or "sort" when !list.IsTuple =>
            new(name, (_, _) => throw new TemplateException($"access to attribute '{name}' of 'list' object is unsafe.")),
        _ => null,
    };

    private static long Index(ListValue list, object? value, RenderState state)
    {
        state.Step(list.Items.Count);
        for (var i = 0; i < list.Items.Count; i++)
        {
            if (Operators.AreEqual(list.Items[i], value))
            {
                return i;
            }
        }

        throw new TemplateException($"{PythonText.Repr(value)} is not in list");
    }
}
