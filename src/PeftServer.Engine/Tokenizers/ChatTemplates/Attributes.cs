namespace PeftServer.Engine.Tokenizers.ChatTemplates;

/// <summary>Attributes, items and slices. Nothing is reached but data, methods of texts and mappings, and the template's own objects.</summary>
internal static class Attributes
{
    /// <summary><c>value.name</c>: a method or attribute, else the item of that name.</summary>
    public static object? GetAttribute(object? value, string name)
    {
        Operators.ThrowIfUndefined(value);
        if (TryGetMember(value, name, out var member))
        {
            return member;
        }

        return value is DictValue dict && dict.TryGet(name, out var item) ? item : Missing(value, name);
    }

    /// <summary><c>value[index]</c>: an item, else the attribute of that name.</summary>
    public static object? GetItem(object? value, object? index, RenderState state)
    {
        Operators.ThrowIfUndefined(value);
        switch (value)
        {
            case DictValue dict when dict.TryGet(index, out var item):
                return item;
            case ListValue list when index is long or bool:
                var at = Operators.ToLong(index);
                at += at < 0 ? list.Items.Count : 0;
                return at >= 0 && at < list.Items.Count
                    ? list.Items[(int)at]
                    : new UndefinedValue($"{PythonText.TypeName(value)} object has no element {PythonText.Str(index)}");
            case TextValue text when index is long n:
                var one = SliceText(text, n, n == -1 ? null : n + 1, null, state);
                return one.Length > 0 ? one : new UndefinedValue($"str object has no element {n}");
        }

        return index is TextValue name
            ? TryGetMember(value, name.Text, out var member) ? member : Missing(value, name.Text)
            : new UndefinedValue($"{PythonText.TypeName(value)} object has no element {PythonText.Str(index)}");
    }

    /// <summary><c>value[start:stop:step]</c> of a list or a text.</summary>
    public static object? Slice(object? value, object? start, object? stop, object? step, RenderState state)
    {
        Operators.ThrowIfUndefined(value);
        return value switch
        {
            ListValue list => new ListValue([.. Indices(list.Items.Count, start, stop, step, state).Select(i => list.Items[i])], list.IsTuple),
            TextValue text => SliceText(text, start, stop, step, state),
            _ => throw new TemplateException($"'{PythonText.TypeName(value)}' object is not subscriptable"),
        };
    }

    private static TextValue SliceText(TextValue text, object? start, object? stop, object? step, RenderState state)
    {
        state.Text(text.Length);
        var starts = new List<int>(text.Length);
        for (var i = 0; i < text.Length; i += char.IsSurrogatePair(text.Text, i) ? 2 : 1)
        {
            starts.Add(i);
        }

        starts.Add(text.Length);
        var builder = new TextBuilder();
        foreach (var i in Indices(starts.Count - 1, start, stop, step, state))
        {
            builder.Append(text, starts[i], starts[i + 1] - starts[i]);
        }

        return builder.Finish();
    }

    private static List<int> Indices(int count, object? start, object? stop, object? step, RenderState state)
    {
        state.Step(count);
        var by = Bound(step, 1);
        if (by == 0)
        {
            throw new TemplateException("slice step cannot be zero");
        }

        var first = by > 0 ? Clamp(Bound(start, 0), count, 0, count) : Clamp(Bound(start, long.MaxValue), count, -1, count - 1);
        var last = by > 0 ? Clamp(Bound(stop, long.MaxValue), count, 0, count) : stop is null ? -1 : Clamp(Bound(stop, 0), count, -1, count - 1);
        var indices = new List<int>();
        for (var i = first; by > 0 ? i < last : i > last; i += by)
        {
            indices.Add((int)i);
        }

        return indices;
    }

    private static long Bound(object? value, long orElse) => value switch
    {
        null => orElse,
        long n => n,
        bool b => b ? 1 : 0,
        UndefinedValue undefined => throw undefined.Error(),
        _ => throw new TemplateException("slice indices must be integers or None"),
    };

    private static long Clamp(long index, int count, long low, long high) =>
        Math.Clamp(index < 0 ? Math.Max(index, -count - 1L) + count : index, low, high);

    private static bool TryGetMember(object? value, string name, out object? member)
    {
        member = value switch
        {
            TextValue text => TextMethods.Find(text, name),
            DictValue dict => DictMethods.Find(dict, name),
            ListValue list => ListMethods.Find(list, name),
            _ => null,
        };
        return member is not null
            || (value is NamespaceValue space && space.Attributes.TryGetValue(name, out member))
            || (value is IAttributes attributes && attributes.TryGetAttribute(name, out member));
    }

    private static UndefinedValue Missing(object? value, string name) =>
        new($"'{PythonText.TypeName(value)} object' has no attribute '{name}'");
}
