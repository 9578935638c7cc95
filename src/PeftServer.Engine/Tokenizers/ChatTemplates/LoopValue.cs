namespace PeftServer.Engine.Tokenizers.ChatTemplates;

/// <summary>The <c>loop</c> of a for block.</summary>
internal sealed class LoopValue(IReadOnlyList<object?> items, int depth, Func<object?, TextValue>? recurse) : CallableValue, IAttributes
{
    private object? _changed;
    private bool _hasChanged;

    public int Index { get; set; }

    public override object? Call(CallArguments arguments, RenderState state) => recurse is null
        ? throw new TemplateException("loop() works in loops marked recursive only")
        : recurse(arguments.Require(0, "iterable"));

    public bool TryGetAttribute(string name, out object? value)
    {
        value = name switch
        {
            "index" => Index + 1L,
            "index0" => (long)Index,
            "revindex" => (long)(items.Count - Index),
            "revindex0" => items.Count - Index - 1L,
            "first" => Index == 0,
            "last" => Index == items.Count - 1,
            "length" => (long)items.Count,
            "depth" => depth + 1L,
            "depth0" => (long)depth,
            "previtem" => Index > 0 ? items[Index - 1] : new UndefinedValue("there is no previous item"),
            "nextitem" => Index + 1 < items.Count ? items[Index + 1] : new UndefinedValue("there is no next item"),
            "cycle" => new FunctionValue("cycle", (a, _) => a.Positional.Count == 0
                ? throw new TemplateException("no items for cycling given")
                : a.Positional[Index % a.Positional.Count]),
            "changed" => new FunctionValue("changed", (a, _) => Changed(a)),
            _ => null,
        };
        return value is not null || (name is "previtem" or "nextitem");
    }

    private bool Changed(CallArguments arguments)
    {
        object? now = new ListValue(arguments.Positional, isTuple: true);
        var changed = !_hasChanged || !Operators.AreEqual(now, _changed);
        (_changed, _hasChanged) = (now, true);
        return changed;
    }
}
