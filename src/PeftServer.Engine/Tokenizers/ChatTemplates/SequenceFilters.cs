namespace PeftServer.Engine.Tokenizers.ChatTemplates;

/// <summary>Jinja's filters on sequences.</summary>
internal static class SequenceFilters
{
    public static readonly IReadOnlyDictionary<string, Filter> Known = new Dictionary<string, Filter>
    {
        ["attr"] = (v, a, _) => Attributes.GetAttribute(v, a.Text(0, "name", "").Text),
        ["batch"] = Batch,
        ["count"] = Length,
        ["dictsort"] = DictSort,
        ["first"] = (v, _, s) => Operators.Iterate(v, s).FirstOrDefault(new UndefinedValue("No first item, sequence was empty.")),
        ["groupby"] = GroupBy,
        ["items"] = (v, _, s) => v is UndefinedValue ? new ListValue([])
            : v is DictValue dict ? DictMethods.Items(dict, s) : throw new TemplateException("Can only get item pairs from a mapping."),
        ["join"] = (v, a, s) => TextMethods.Join(a.Text(0, "d", ""), Attribute(Operators.Iterate(v, s), a.Get(1, "attribute"), s), s, strict: false),
        ["last"] = (v, _, s) => Operators.Iterate(v, s).LastOrDefault(new UndefinedValue("No last item, sequence was empty.")),
        ["length"] = Length,
        ["list"] = (v, _, s) => new ListValue([.. Operators.Iterate(v, s)]),
        ["map"] = Map,
        ["max"] = (v, a, s) => Extreme(v, a, s, "No aggregated item, sequence was empty.", sign: 1),
        ["min"] = (v, a, s) => Extreme(v, a, s, "No aggregated item, sequence was empty.", sign: -1),
        ["reject"] = (v, a, s) => Select(v, a, s, byAttribute: false, keep: false),
        ["rejectattr"] = (v, a, s) => Select(v, a, s, byAttribute: true, keep: false),
        ["reverse"] = (v, _, s) => v is TextValue text
            ? Attributes.Slice(text, null, null, -1L, s)
            : new ListValue([.. Operators.Iterate(v, s).Reverse()]),
        ["select"] = (v, a, s) => Select(v, a, s, byAttribute: false, keep: true),
        ["selectattr"] = (v, a, s) => Select(v, a, s, byAttribute: true, keep: true),
        ["slice"] = Slice,
        ["sort"] = (v, a, s) => Sort(v, a, s),
        ["sum"] = (v, a, s) => Attribute(Operators.Iterate(v, s), a.Get(0, "attribute"), s).Aggregate(a.Get(1, "start", 0L), (x, y) => Operators.Binary("+", x, y, s)),
        ["unique"] = Unique,
    };

    private static object Length(object? value, CallArguments arguments, RenderState state) => value switch
    {
        TextValue text => text.Text.EnumerateRunes().LongCount(),
        ListValue list => (long)list.Items.Count,
        DictValue dict => (long)dict.Count,
        UndefinedValue => 0L,
        _ => throw new TemplateException($"object of type '{PythonText.TypeName(value)}' has no len()"),
    };

    private static ListValue Batch(object? value, CallArguments arguments, RenderState state)
    {
        var size = Size(arguments, "linecount");
        var fill = arguments.Get(1, "fill_with");
        return new ListValue([.. Operators.Iterate(value, state).Chunk(size).Select(object? (chunk) =>
        {
            state.Step(fill is null ? 0 : size);
            return new ListValue(fill is null || chunk.Length == size ? chunk : [.. chunk, .. Enumerable.Repeat(fill, size - chunk.Length)]);
        })]);
    }

    private static ListValue Slice(object? value, CallArguments arguments, RenderState state)
    {
        var count = Size(arguments, "slices");
        var fill = arguments.Get(1, "fill_with");
        var items = Operators.Iterate(value, state).ToList();
        state.Step(count);
        var (each, extra) = (items.Count / count, items.Count % count);
        var slices = new List<object?>();
        for (int i = 0, at = 0; i < count; i++)
        {
            var length = each + (i < extra ? 1 : 0);
            var slice = items.GetRange(at, length);
            if (fill is not null && i >= extra && extra > 0)
            {
                slice.Add(fill);
            }

            slices.Add(new ListValue(slice));
            at += length;
        }

        return new ListValue(slices);
    }

    private static int Size(CallArguments arguments, string name) =>
        arguments.Integer(0, name, 0) is > 0 and <= 100_000 and var size ? (int)size : throw new TemplateException($"{name} must be from 1 to 100000");

    private static ListValue DictSort(object? value, CallArguments arguments, RenderState state)
    {
        var dict = value as DictValue ?? throw new TemplateException("dictsort needs a mapping");
        var caseSensitive = Operators.IsTrue(arguments.Get(0, "case_sensitive", false));
        var at = arguments.Text(1, "by", "key").Text == "value" ? 1 : 0;
        var sorted = Sorted(
            DictMethods.Items(dict, state).Items, i => Folded(((ListValue)i!).Items[at], caseSensitive), Operators.IsTrue(arguments.Get(2, "reverse", false)), state);
        return new ListValue(sorted);
    }

    private static ListValue GroupBy(object? value, CallArguments arguments, RenderState state)
    {
        var attribute = arguments.Require(0, "attribute");
        var orElse = arguments.Get(1, "default");
        var caseSensitive = Operators.IsTrue(arguments.Get(2, "case_sensitive", false));
        object? Key(object? item) => Path(item, attribute, state) is var key && key is UndefinedValue && orElse is not null ? orElse : key;
        var groups = new List<object?>();
        foreach (var item in Sorted(Operators.Iterate(value, state), i => Folded(Key(i), caseSensitive), reverse: false, state))
        {
            var key = Key(item);
            if (groups.Count > 0 && groups[^1] is ListValue { Items: [var grouper, ListValue list] } && Operators.AreEqual(Folded(grouper, caseSensitive), Folded(key, caseSensitive)))
            {
                groups[^1] = new ListValue([grouper, new ListValue([.. list.Items, item])], isTuple: true);
                state.Step(list.Items.Count);
            }
            else
            {
                groups.Add(new ListValue([key, new ListValue([item])], isTuple: true));
            }
        }

        return new ListValue(groups);
    }

    private static ListValue Map(object? value, CallArguments arguments, RenderState state)
    {
        var items = Operators.Iterate(value, state);
        if (arguments.Positional.Count == 0)
        {
            var attribute = arguments.Require(0, "attribute");
            var orElse = arguments.Get(-1, "default");
            return new ListValue([.. items.Select(i => Path(i, attribute, state) is var v && v is UndefinedValue && arguments.Named.ContainsKey("default") ? orElse : v)]);
        }

        var name = PythonText.Str(arguments.Positional[0]).Text;
        var rest = new CallArguments([.. arguments.Positional.Skip(1)], arguments.Named);
        return new ListValue([.. items.Select(i => Filters.Apply(name, i, rest, state))]);
    }

    private static ListValue Select(object? value, CallArguments arguments, RenderState state, bool byAttribute, bool keep)
    {
        var attribute = byAttribute ? arguments.Require(0, "attribute") : null;
        var given = arguments.Positional.Skip(byAttribute ? 1 : 0).ToList();
        var test = given.Count > 0 ? PythonText.Str(given[0]).Text : null;
        var rest = new CallArguments([.. given.Skip(1)], arguments.Named);
        return new ListValue([.. Operators.Iterate(value, state).Where(item =>
        {
            state.Step();
            var subject = byAttribute ? Path(item, attribute, state) : item;
            return keep == (test is null ? Operators.IsTrue(subject) : ValueTests.Apply(test, subject, rest, state));
        })]);
    }

    private static object? Extreme(object? value, CallArguments arguments, RenderState state, string ifEmpty, int sign)
    {
        var caseSensitive = Operators.IsTrue(arguments.Get(0, "case_sensitive", false));
        var attribute = arguments.Get(1, "attribute");
        object? Key(object? item) => Folded(attribute is null ? item : Path(item, attribute, state), caseSensitive);
        var items = Operators.Iterate(value, state).ToList();
        return items.Count == 0
            ? new UndefinedValue(ifEmpty)
            : items.Aggregate((best, item) => Operators.Order(Key(item), Key(best)) * sign > 0 ? item : best);
    }

    private static ListValue Sort(object? value, CallArguments arguments, RenderState state)
    {
        var reverse = Operators.IsTrue(arguments.Get(0, "reverse", false));
        var caseSensitive = Operators.IsTrue(arguments.Get(1, "case_sensitive", false));
        object?[] attributes = arguments.Get(2, "attribute") switch
        {
            null => [],
            TextValue names => [.. names.Text.Split(',').Select(TextValue.Own)],
            var other => [other],
        };
        object? Key(object? item) => attributes.Length == 0
            ? Folded(item, caseSensitive)
            : new ListValue([.. attributes.Select(a => Folded(Path(item, a, state), caseSensitive))]);
        return new ListValue(Sorted(Operators.Iterate(value, state), Key, reverse, state));
    }

    private static ListValue Unique(object? value, CallArguments arguments, RenderState state)
    {
        var caseSensitive = Operators.IsTrue(arguments.Get(0, "case_sensitive", false));
        var attribute = arguments.Get(1, "attribute");
        var seen = new HashSet<object>(ValueEquality.Instance);
        return new ListValue([.. Operators.Iterate(value, state).Where(item =>
            seen.Add(Folded(attribute is null ? item : Path(item, attribute, state), caseSensitive) ?? DBNull.Value))]);
    }

    private static List<object?> Sorted(IEnumerable<object?> items, Func<object?, object?> key, bool reverse, RenderState state)
    {
        var keyed = items.Select(i => (Key: key(i), Item: i)).ToList();
        var comparer = Comparer<object?>.Create((x, y) =>
        {
            state.Step();
            return Operators.Order(x, y);
        });
        try
        {
            // stable both ways, as Python's sort is
            return [.. (reverse ? keyed.OrderByDescending(k => k.Key, comparer) : keyed.OrderBy(k => k.Key, comparer)).Select(k => k.Item)];
        }
        catch (InvalidOperationException e) when (e.InnerException is TemplateException inner)
        {
            throw inner;
        }
    }

    private static IEnumerable<object?> Attribute(IEnumerable<object?> items, object? attribute, RenderState state) =>
        attribute is null ? items : items.Select(i => Path(i, attribute, state));

    /// <summary>An attribute or item of <paramref name="item"/>; dots go deeper.</summary>
    private static object? Path(object? item, object? attribute, RenderState state)
    {
        if (attribute is not TextValue path)
        {
            return Attributes.GetItem(item, attribute, state);
        }

        foreach (var part in path.Text.Split('.'))
        {
            item = Attributes.GetItem(item, long.TryParse(part, out var index) ? index : TextValue.Own(part), state);
        }

        return item;
    }

    private static object? Folded(object? value, bool caseSensitive) =>
        value is TextValue text && !caseSensitive ? text.Map(s => s.ToLowerInvariant()) : value;
}
