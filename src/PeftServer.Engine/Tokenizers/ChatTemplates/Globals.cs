using System.Globalization;

namespace PeftServer.Engine.Tokenizers.ChatTemplates;

/// <summary>The functions that templates find beside their data.</summary>
internal static class Globals
{
    // Jinja's sandbox has the same limit.
    private const int MaxRange = 100_000;

    public static void AddTo(Scope scope)
    {
        Add(scope, "range", (a, s) => Range(a, s));
        Add(scope, "namespace", (a, s) => Namespace(a, s));
        Add(scope, "dict", (a, s) => Dict(a, s));
        Add(scope, "raise_exception", (a, _) => throw new TemplateException(PythonText.Str(a.Require(0, "message")).Text));
        Add(scope, "strftime_now", (a, s) => TextValue.Own(TimeFormat.Format(a.Text(0, "format", "").Text, s.Clock.GetLocalNow())));
        Add(scope, "cycler", (a, _) => new CyclerValue(a.Positional));
        Add(scope, "joiner", (a, _) => Joiner(a.Text(0, "sep", ", ")));
    }

    private static void Add(Scope scope, string name, Func<CallArguments, RenderState, object?> body) => scope.Set(name, new FunctionValue(name, body));

    private static ListValue Range(CallArguments arguments, RenderState state)
    {
        arguments.Require(0, "stop");
        var first = arguments.Integer(0, "start", 0);
        var (start, stop) = arguments.Positional.Count > 1 ? (first, arguments.Integer(1, "stop", 0)) : (0, first);
        var step = arguments.Integer(2, "step", 1);
        if (step == 0)
        {
            throw new TemplateException("range() arg 3 must not be zero");
        }

        var count = (decimal)stop - start;
        count = count == 0 || count > 0 != step > 0 ? 0 : Math.Ceiling(count / step);
        if (count > MaxRange)
        {
            throw new TemplateException($"Range too big. The sandbox blocks ranges larger than MAX_RANGE ({MaxRange}).");
        }

        state.Step((long)count);
        return new ListValue([.. Enumerable.Range(0, (int)count).Select(object? (i) => start + (i * step))]);
    }

    private static NamespaceValue Namespace(CallArguments arguments, RenderState state)
    {
        var space = new NamespaceValue();
        foreach (var (key, value) in Dict(arguments, state).Entries)
        {
            space.Attributes[PythonText.Str(key).Text] = value;
        }

        return space;
    }

    private static DictValue Dict(CallArguments arguments, RenderState state)
    {
        var dict = new DictValue();
        if (arguments.Positional is [var source, ..])
        {
            var entries = source is DictValue given ? DictMethods.Items(given, state) : source;
            foreach (var entry in Operators.Iterate(entries, state))
            {
                if (entry is not ListValue { Items: [var key, var value] })
                {
                    throw new TemplateException("dict() needs a mapping or a list of pairs");
                }

                dict.Set(key, value);
            }
        }

        foreach (var (name, value) in arguments.Named)
        {
            dict.Set(TextValue.Own(name), value);
        }

        return dict;
    }

    private static FunctionValue Joiner(TextValue separator)
    {
        var used = false;
        return new FunctionValue("joiner", (_, _) =>
        {
            var text = used ? separator : TextValue.Empty;
            used = true;
            return text;
        });
    }

    private sealed class CyclerValue(IReadOnlyList<object?> items) : IAttributes
    {
        private int _at;

        public bool TryGetAttribute(string name, out object? value)
        {
            value = items.Count == 0 ? throw new TemplateException("at least one item has to be provided") : name switch
            {
                "current" => items[_at],
                "next" => new FunctionValue("next", (_, _) =>
                {
                    var item = items[_at];
                    _at = (_at + 1) % items.Count;
                    return item;
                }),
                "reset" => new FunctionValue("reset", (_, _) =>
                {
                    _at = 0;
                    return null;
                }),
                _ => null,
            };
            return name is "current" or "next" or "reset";
        }
    }
}

/// <summary>C's <c>strftime</c> in the C locale.</summary>
internal static class TimeFormat
{
    public static string Format(string format, DateTimeOffset time)
    {
        var result = new System.Text.StringBuilder();
        for (var i = 0; i < format.Length; i++)
        {
            if (format[i] != '%' || i + 1 == format.Length)
            {
                result.Append(format[i]);
                continue;
            }

            var plain = format[i + 1] == '-' && i + 2 < format.Length; // %-d: without the leading zero
            i += plain ? 2 : 1;
            var text = Field(format[i], time) ?? $"%{format[i]}";
            result.Append(plain && text.Length > 1 ? text.TrimStart('0') is { Length: > 0 } trimmed ? trimmed : "0" : text);
        }

        return result.ToString();
    }

    private static string? Field(char code, DateTimeOffset t)
    {
        string Net(string format) => t.ToString(format, CultureInfo.InvariantCulture);
        return code switch
        {
            'a' => Net("ddd"),
            'A' => Net("dddd"),
            'b' or 'h' => Net("MMM"),
            'B' => Net("MMMM"),
            'd' => Net("dd"),
            'e' => Net("%d").PadLeft(2),
            'f' => Net("ffffff"),
            'H' => Net("HH"),
            'I' => Net("hh"),
            'j' => t.DayOfYear.ToString("000", CultureInfo.InvariantCulture),
            'm' => Net("MM"),
            'M' => Net("mm"),
            'p' => t.Hour < 12 ? "AM" : "PM",
            'S' => Net("ss"),
            'u' => (t.DayOfWeek == DayOfWeek.Sunday ? 7 : (int)t.DayOfWeek).ToString(CultureInfo.InvariantCulture),
            'w' => ((int)t.DayOfWeek).ToString(CultureInfo.InvariantCulture),
            'y' => Net("yy"),
            'Y' => Net("yyyy"),
            'F' => Net("yyyy-MM-dd"),
            'T' => Net("HH:mm:ss"),
            'R' => Net("HH:mm"),
            'D' => Net("MM/dd/yy"),
            'c' => Net("ddd MMM ") + Net("%d").PadLeft(2) + Net(" HH:mm:ss yyyy"),
            'x' => Net("MM/dd/yy"),
            'X' => Net("HH:mm:ss"),
            'n' => "\n",
            't' => "\t",
            '%' => "%",
            'z' or 'Z' => "", // Python's naive times have no zone
            _ => null,
        };
    }
}
