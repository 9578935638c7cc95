using System.Collections.Frozen;
using System.Globalization;
using System.Numerics;
using System.Text;

namespace PeftServer.Engine.Tokenizers.ChatTemplates;

/// <summary>Jinja's filters: what may stand after <c>|</c>. Those on sequences are in <see cref="SequenceFilters"/>.</summary>
internal static class Filters
{
    private static readonly FrozenDictionary<string, Filter> Known = new Dictionary<string, Filter>
    {
        ["abs"] = (v, _, _) => Operators.Order(v, 0L) < 0 ? Operators.Sign("-", v) : v,
        ["capitalize"] = (v, _, _) => PythonText.Str(v) is var t ? TextMethods.Cased(t, TextMethods.Capitalize(t.Text)) : null,
        ["center"] = (v, a, s) => TextMethods.Center(PythonText.Str(v), a.Integer(0, "width", 80), " ", s),
        ["default"] = Default,
        ["d"] = Default,
        ["e"] = Escape,
        ["escape"] = Escape,
        ["forceescape"] = Escape,
        ["float"] = (v, a, _) => ToFloat(v, a.Get(0, "default", 0.0)),
        ["format"] = (v, a, s) => TextFormat.Percent(PythonText.Str(v), a.Positional, Named(a), s),
        ["indent"] = Indent,
        ["int"] = (v, a, _) => ToInteger(v, a),
        ["lower"] = (v, _, _) => PythonText.Str(v).Map(s => s.ToLowerInvariant()),
        ["pprint"] = (v, _, _) => new TextValue(PythonText.Repr(v), PythonText.MainOf(v)),
        ["replace"] = (v, a, s) => TextMethods.Replace(
            PythonText.Str(v), PythonText.Str(a.Require(0, "old")), PythonText.Str(a.Require(1, "new")), a.Integer(2, "count", -1), s),
        ["round"] = Round,
        ["safe"] = (v, _, _) => PythonText.Str(v),
        ["string"] = (v, _, _) => PythonText.Str(v),
        ["title"] = (v, _, _) => PythonText.Str(v) is var t ? TextMethods.Cased(t, Title(t.Text)) : null,
        ["tojson"] = (v, a, s) => JsonText.Write(v, a, s),
        ["trim"] = (v, a, _) => Trim(PythonText.Str(v), a),
        ["truncate"] = Truncate,
        ["upper"] = (v, _, _) => PythonText.Str(v).Map(s => s.ToUpperInvariant()),
        ["urlencode"] = (v, _, _) => PythonText.Str(v).Map(s => Uri.EscapeDataString(s).Replace("%2F", "/", StringComparison.Ordinal)),
        ["wordcount"] = (v, _, s) => (long)TextSplitter.Split(PythonText.Str(v), CallArguments.None, fromRight: false, s).Items.Count,
    }.Concat(SequenceFilters.Known).ToFrozenDictionary(StringComparer.Ordinal);

    public static bool Exists(string name) => Known.ContainsKey(name);

    public static object? Apply(string name, object? value, CallArguments arguments, RenderState state) =>
        Known.TryGetValue(name, out var filter)
            ? filter(value, arguments, state)
            : throw new TemplateException($"there is no filter '{name}'");

    private static object? Default(object? value, CallArguments arguments, RenderState state) =>
        value is UndefinedValue || (Operators.IsTrue(arguments.Get(1, "boolean", false)) && !Operators.IsTrue(value))
            ? arguments.Get(0, "default_value", TextValue.Empty)
            : value;

    private static TextValue Escape(object? value, CallArguments arguments, RenderState state)
    {
        var text = PythonText.Str(value);
        state.Text(text.Length * 5L);
        return text.Map(s => s.Replace("&", "&amp;", StringComparison.Ordinal).Replace("<", "&lt;", StringComparison.Ordinal)
            .Replace(">", "&gt;", StringComparison.Ordinal).Replace("'", "&#39;", StringComparison.Ordinal).Replace("\"", "&#34;", StringComparison.Ordinal));
    }

    private static DictValue? Named(CallArguments arguments)
    {
        if (arguments.Named.Count == 0)
        {
            return null;
        }

        var named = new DictValue();
        foreach (var (name, value) in arguments.Named)
        {
            named.Set(TextValue.Own(name), value);
        }

        return named;
    }

    private static TextValue Indent(object? value, CallArguments arguments, RenderState state)
    {
        var text = PythonText.Str(value);
        var indent = arguments.Get(0, "width", 4L) switch
        {
            TextValue given => given,
            long n => Padding(n, state),
            var other => throw new TemplateException($"indent: width cannot be {PythonText.TypeName(other)}"),
        };
        var first = Operators.IsTrue(arguments.Get(1, "first", false));
        var blank = Operators.IsTrue(arguments.Get(2, "blank", false));
        var builder = new TextBuilder();
        var start = 0;
        for (var line = 0; start <= text.Length; line++)
        {
            var end = text.Text.IndexOf('\n', start);
            var stop = end < 0 ? text.Length : end;
            if ((line > 0 || first) && (blank || stop > start))
            {
                state.Text(builder.Length + (long)indent.Length);
                builder.Append(indent);
            }

            builder.Append(text, start, (end < 0 ? stop : end + 1) - start);
            start = end < 0 ? text.Length + 1 : end + 1;
        }

        return builder.Finish();
    }

    private static TextValue Padding(long width, RenderState state)
    {
        state.Text(width);
        return TextValue.Own(new string(' ', (int)Math.Max(width, 0)));
    }

    private static TextValue Trim(TextValue text, CallArguments arguments)
    {
        var chars = arguments.Get(0, "chars") is { } given ? PythonText.Str(given).Text : null;
        Func<char, bool> strip = chars is null ? PythonSpace.Is : c => chars.Contains(c, StringComparison.Ordinal);
        return text.TrimStart(strip).TrimEnd(strip);
    }

    private static TextValue Truncate(object? value, CallArguments arguments, RenderState state)
    {
        var text = PythonText.Str(value);
        var length = (int)Math.Clamp(arguments.Integer(0, "length", 255), 0, int.MaxValue);
        var killWords = Operators.IsTrue(arguments.Get(1, "killwords", false));
        var end = arguments.Text(2, "end", "...");
        var leeway = arguments.Integer(3, "leeway", 5);
        if (text.Length <= length + leeway)
        {
            return text;
        }

        var kept = text.Slice(0, Math.Max(length - end.Length, 0));
        var space = kept.Text.LastIndexOf(' ');
        return (killWords || space < 0 ? kept : kept.Slice(0, space)).Concat(end);
    }

    private static object Round(object? value, CallArguments arguments, RenderState state)
    {
        Operators.ThrowIfUndefined(value);
        if (!Operators.IsNumber(value))
        {
            throw new TemplateException($"type {PythonText.TypeName(value)} doesn't define round");
        }

        var precision = (int)Math.Clamp(arguments.Integer(0, "precision", 0), -300, 300);
        var method = arguments.Text(1, "method", "common").Text;
        var number = Operators.ToDouble(value!);
        var scale = Math.Pow(10, precision);
        return method switch
        {
            "common" => precision is >= 0 and <= 15 ? Math.Round(number, precision, MidpointRounding.ToEven) : Math.Round(number * scale) / scale,
            "ceil" => Math.Ceiling(number * scale) / scale,
            "floor" => Math.Floor(number * scale) / scale,
            _ => throw new TemplateException("method must be common, ceil or floor"),
        };
    }

    private static object? ToFloat(object? value, object? orElse) => value switch
    {
        TextValue text => double.TryParse(text.Text.Trim(), NumberStyles.Float, CultureInfo.InvariantCulture, out var number) ? number : orElse,
        _ => Operators.IsNumber(value) ? Operators.ToDouble(value!) : orElse,
    };

    private static object? ToInteger(object? value, CallArguments arguments)
    {
        var orElse = arguments.Get(0, "default", 0L);
        var numberBase = arguments.Integer(1, "base", 10);
        switch (value)
        {
            case long or BigInteger:
                return value;
            case bool b:
                return b ? 1L : 0L;
            case double d:
                return Math.Abs(d) < 9e18 ? (long)d : orElse;
            case TextValue text when numberBase == 16:
                var hex = text.Text.Trim();
                hex = hex.StartsWith("0x", StringComparison.OrdinalIgnoreCase) ? hex[2..] : hex;
                return long.TryParse(hex, NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out var h) ? h : orElse;
            case TextValue text:
                return long.TryParse(text.Text.Trim(), NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out var n) ? n
                    : double.TryParse(text.Text.Trim(), NumberStyles.Float, CultureInfo.InvariantCulture, out var f) && Math.Abs(f) < 9e18 ? (long)f
                    : orElse;
            default:
                return orElse;
        }
    }

    // Jinja's own idea of a title: words begin after white space, a dash or an opening bracket.
    private static string Title(string text)
    {
        var result = new StringBuilder(text.Length);
        for (var i = 0; i < text.Length; i++)
        {
            var starts = i == 0 || PythonSpace.Is(text[i - 1]) || "-({[<".Contains(text[i - 1], StringComparison.Ordinal);
            result.Append(starts ? char.ToUpperInvariant(text[i]) : char.ToLowerInvariant(text[i]));
        }

        return result.ToString();
    }
}

internal delegate object? Filter(object? value, CallArguments arguments, RenderState state);
