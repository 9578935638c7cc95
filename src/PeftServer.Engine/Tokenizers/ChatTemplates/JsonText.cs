using System.Globalization;
using System.Numerics;
using System.Text;

namespace PeftServer.Engine.Tokenizers.ChatTemplates;

/// <summary>
/// <c>tojson</c> as transformers defines it for chat templates: Python's <c>json.dumps</c> with <c>ensure_ascii=False</c>
/// unless asked otherwise, and nothing escaped for HTML.
/// </summary>
internal sealed class JsonText
{
    private readonly StringBuilder _text = new();
    private readonly RenderState _state;
    private readonly bool _ascii;
    private readonly bool _sortKeys;
    private readonly string? _indent;
    private readonly string _itemSeparator;
    private readonly string _keySeparator;

    private JsonText(CallArguments arguments, RenderState state)
    {
        _state = state;
        _ascii = Operators.IsTrue(arguments.Get(0, "ensure_ascii", false));
        _indent = arguments.Get(1, "indent") switch
        {
            null => null,
            long n => new string(' ', (int)Math.Clamp(n, 0, 64)),
            TextValue text => text.Text,
            var other => throw new TemplateException($"tojson: indent cannot be {PythonText.TypeName(other)}"),
        };
        _sortKeys = Operators.IsTrue(arguments.Get(3, "sort_keys", false));
        (_itemSeparator, _keySeparator) = arguments.Get(2, "separators") is ListValue { Items: [TextValue item, TextValue key] }
            ? (item.Text, key.Text)
            : (_indent is null ? ", " : ",", ": ");
    }

    public static TextValue Write(object? value, CallArguments arguments, RenderState state)
    {
        var json = new JsonText(arguments, state);
        json.Append(value, 0);
        return new TextValue(json._text.ToString(), PythonText.MainOf(value));
    }

    private void Append(object? value, int depth)
    {
        _state.Step();
        _state.Text(_text.Length);
        switch (value)
        {
            case TextValue text:
                AppendString(text.Text);
                break;
            case ListValue list:
                AppendGroup('[', ']', list.Items, depth, item => Append(item, depth + 1));
                break;
            case DictValue dict:
                var entries = _sortKeys ? dict.Entries.OrderBy(e => PythonText.Str(e.Key).Text, StringComparer.Ordinal).ToList() : dict.Entries;
                AppendGroup('{', '}', entries, depth, entry =>
                {
                    AppendString(entry.Key is TextValue key ? key.Text : Scalar(entry.Key));
                    _text.Append(_keySeparator);
                    Append(entry.Value, depth + 1);
                });
                break;
            default:
                _text.Append(Scalar(value));
                break;
        }
    }

    private void AppendGroup<T>(char open, char close, IReadOnlyList<T> items, int depth, Action<T> append)
    {
        _text.Append(open);
        for (var i = 0; i < items.Count; i++)
        {
            _text.Append(i > 0 ? _itemSeparator : "");
            AppendLine(depth + 1);
            append(items[i]);
        }

        if (items.Count > 0)
        {
            AppendLine(depth);
        }

        _text.Append(close);
    }

    private void AppendLine(int depth)
    {
        if (_indent is not null)
        {
            _text.Append('\n').Insert(_text.Length, _indent, depth);
        }
    }

    private void AppendString(string text)
    {
        _text.Append('"');
        foreach (var c in text)
        {
            _ = c switch
            {
                '"' => _text.Append("\\\""),
                '\\' => _text.Append(@"\\"),
                '\n' => _text.Append(@"\n"),
                '\r' => _text.Append(@"\r"),
                '\t' => _text.Append(@"\t"),
                '\b' => _text.Append(@"\b"),
                '\f' => _text.Append(@"\f"),
                < ' ' => AppendEscape(c),
                > '~' when _ascii => AppendEscape(c),
                _ => _text.Append(c),
            };
        }

        _text.Append('"');
    }

    private StringBuilder AppendEscape(char c) => _text.Append(CultureInfo.InvariantCulture, $"\\u{(int)c:x4}");

    private static string Scalar(object? value) => value switch
    {
        null => "null",
        true => "true",
        false => "false",
        long or BigInteger => PythonText.Repr(value),
        double d => double.IsNaN(d) ? "NaN" : double.IsPositiveInfinity(d) ? "Infinity" : double.IsNegativeInfinity(d) ? "-Infinity" : PythonText.Float(d),
        UndefinedValue => throw new TemplateException("Object of type Undefined is not JSON serializable"),
        _ => throw new TemplateException($"Object of type {PythonText.TypeName(value)} is not JSON serializable"),
    };
}
