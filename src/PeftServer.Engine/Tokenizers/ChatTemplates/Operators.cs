using System.Numerics;

namespace PeftServer.Engine.Tokenizers.ChatTemplates;

/// <summary>Python's operators on template values.</summary>
internal static class Operators
{
    public static bool IsTrue(object? value) => value switch
    {
        null or UndefinedValue => false,
        bool b => b,
        long n => n != 0,
        BigInteger n => !n.IsZero,
        double d => d != 0,
        TextValue text => text.Length > 0,
        ListValue list => list.Items.Count > 0,
        DictValue dict => dict.Count > 0,
        _ => true,
    };

    public static bool AreEqual(object? left, object? right)
    {
        RenderState.CheckStack();
        return (left, right) switch
        {
            (null, null) => true,
            (TextValue a, TextValue b) => a.Equals(b),
            (ListValue a, ListValue b) => a.IsTuple == b.IsTuple && a.Items.Count == b.Items.Count
                && a.Items.Zip(b.Items).All(p => AreEqual(p.First, p.Second)),
            (DictValue a, DictValue b) => a.Count == b.Count && a.Entries.All(e => b.TryGet(e.Key, out var other) && AreEqual(e.Value, other)),
            (UndefinedValue, UndefinedValue) => true,
            _ when IsNumber(left) && IsNumber(right) => left is long or bool && right is long or bool ? ToLong(left) == ToLong(right) : ToDouble(left!) == ToDouble(right!),
            _ => ReferenceEquals(left, right),
        };
    }

    public static bool Compare(string op, object? left, object? right, RenderState state) => op switch
    {
        "==" => AreEqual(left, right),
        "!=" => !AreEqual(left, right),
        "in" => Contains(right, left, state),
        "not in" => !Contains(right, left, state),
        "<" => Order(left, right, op) < 0,
        "<=" => Order(left, right, op) <= 0,
        ">" => Order(left, right, op) > 0,
        _ => Order(left, right, op) >= 0,
    };

    /// <summary>Negative, zero, positive; throws where Python knows no order.</summary>
    public static int Order(object? left, object? right, string op = "<")
    {
        RenderState.CheckStack();
        if (IsNumber(left) && IsNumber(right))
        {
            return left is long or bool && right is long or bool ? ToLong(left).CompareTo(ToLong(right)) : ToDouble(left!).CompareTo(ToDouble(right!));
        }

        if (left is TextValue a && right is TextValue b)
        {
            return CompareCodePoints(a.Text, b.Text);
        }

        if (left is ListValue x && right is ListValue y && x.IsTuple == y.IsTuple)
        {
            var first = x.Items.Zip(y.Items).FirstOrDefault(p => !AreEqual(p.First, p.Second));
            return first is (null, null) ? x.Items.Count.CompareTo(y.Items.Count) : Order(first.First, first.Second, op);
        }

        ThrowIfUndefined(left);
        ThrowIfUndefined(right);
        throw new TemplateException($"'{op}' not supported between instances of '{PythonText.TypeName(left)}' and '{PythonText.TypeName(right)}'");
    }

    public static object? Sign(string op, object? value)
    {
        ThrowIfUndefined(value);
        return value switch
        {
            bool or long => Checked(() => op == "-" ? checked(-ToLong(value)) : ToLong(value)),
            double d => op == "-" ? -d : d,
            _ => throw new TemplateException($"bad operand type for unary {op}: '{PythonText.TypeName(value)}'"),
        };
    }

    public static object? Binary(string op, object? left, object? right, RenderState state)
    {
        if (op == "~")
        {
            return Concat(PythonText.Str(left), PythonText.Str(right), state);
        }

        ThrowIfUndefined(left);
        ThrowIfUndefined(right);
        if (IsNumber(left) && IsNumber(right))
        {
            return Arithmetic.Compute(op, left!, right!);
        }

        return (op, left, right) switch
        {
            ("+", TextValue a, TextValue b) => Concat(a, b, state),
            ("+", ListValue a, ListValue b) when a.IsTuple == b.IsTuple => Concat(a, b, state),
            ("*", TextValue text, long n) => Repeat(text, n, state),
            ("*", long n, TextValue text) => Repeat(text, n, state),
            ("*", ListValue list, long n) => Repeat(list, n, state),
            ("*", long n, ListValue list) => Repeat(list, n, state),
            ("%", TextValue format, _) => TextFormat.Percent(format, right, state),
            ("+", TextValue, _) => throw new TemplateException($"can only concatenate str (not \"{PythonText.TypeName(right)}\") to str"),
            ("+", ListValue list, _) => throw new TemplateException($"can only concatenate {PythonText.TypeName(list)} (not \"{PythonText.TypeName(right)}\") to {PythonText.TypeName(list)}"),
            _ => throw new TemplateException($"unsupported operand type(s) for {op}: '{PythonText.TypeName(left)}' and '{PythonText.TypeName(right)}'"),
        };
    }

    /// <summary>The elements of <paramref name="value"/>: characters of a text, keys of a mapping.</summary>
    public static IEnumerable<object?> Iterate(object? value, RenderState state)
    {
        switch (value)
        {
            case ListValue list:
                state.Step(list.Items.Count);
                return list.Items;
            case DictValue dict:
                state.Step(dict.Count);
                return dict.Entries.Select(e => e.Key);
            case TextValue text:
                state.Step(text.Length);
                return Characters(text);
            case UndefinedValue:
                return [];
            default:
                throw new TemplateException($"'{PythonText.TypeName(value)}' object is not iterable");
        }
    }

    public static bool Contains(object? container, object? item, RenderState state)
    {
        switch (container)
        {
            case TextValue text:
                state.Step(text.Length / 16);
                return item is TextValue part
                    ? text.Text.Contains(part.Text, StringComparison.Ordinal)
                    : throw new TemplateException($"'in <string>' requires string as left operand, not {PythonText.TypeName(item)}");
            case DictValue dict:
                return dict.TryGet(item, out _);
            case NamespaceValue:
                throw new TemplateException("argument of type 'Namespace' is not iterable");
            default:
                return Iterate(container, state).Any(i => AreEqual(i, item));
        }
    }

    public static void ThrowIfUndefined(object? value)
    {
        if (value is UndefinedValue undefined)
        {
            throw undefined.Error();
        }
    }

    public static bool IsNumber(object? value) => value is long or double or bool or BigInteger;

    public static double ToDouble(object value) => value switch
    {
        long n => n,
        BigInteger n => (double)n,
        bool b => b ? 1 : 0,
        _ => (double)value,
    };

    public static long ToLong(object value) => value is bool b ? (b ? 1 : 0) : (long)value;

    public static object Checked(Func<long> compute)
    {
        try
        {
            return compute();
        }
        catch (OverflowException)
        {
            throw new TemplateException("a whole number of the chat template goes beyond 64 bits");
        }
    }

    public static TextValue Concat(TextValue left, TextValue right, RenderState state)
    {
        state.Text((long)left.Length + right.Length);
        return left.Length == 0 ? right : right.Length == 0 ? left : left.Concat(right);
    }

    private static ListValue Concat(ListValue left, ListValue right, RenderState state)
    {
        state.Step(left.Items.Count + right.Items.Count);
        return new ListValue([.. left.Items, .. right.Items], left.IsTuple);
    }

    private static TextValue Repeat(TextValue text, long times, RenderState state)
    {
        times = Math.Max(times, 0);
        state.Text(text.Length > 0 && times > RenderState.MaxText ? long.MaxValue : text.Length * times);
        var builder = new TextBuilder();
        for (var i = 0L; i < times && text.Length > 0; i++)
        {
            builder.Append(text);
        }

        return builder.Finish();
    }

    private static ListValue Repeat(ListValue list, long times, RenderState state)
    {
        times = list.Items.Count == 0 ? 0 : Math.Max(times, 0);
        state.Step(times > RenderState.MaxSteps ? RenderState.MaxSteps : list.Items.Count * times);
        return new ListValue([.. Enumerable.Repeat(list.Items, (int)times).SelectMany(i => i)], list.IsTuple);
    }

    private static IEnumerable<object?> Characters(TextValue text)
    {
        for (int at = 0, length; at < text.Length; at += length)
        {
            length = char.IsSurrogatePair(text.Text, at) ? 2 : 1;
            yield return text.Slice(at, length);
        }
    }

    // Python orders texts by code points; UTF-16 units would put U+FFFF after the planes above.
    private static int CompareCodePoints(string left, string right)
    {
        using var a = left.EnumerateRunes().GetEnumerator();
        using var b = right.EnumerateRunes().GetEnumerator();
        while (true)
        {
            var (more, other) = (a.MoveNext(), b.MoveNext());
            if (!more || !other)
            {
                return more.CompareTo(other);
            }

            if (a.Current.CompareTo(b.Current) is not 0 and var order)
            {
                return order;
            }
        }
    }
}
